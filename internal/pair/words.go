package pair

import "strings"

// words are those of codes, in the order of the alphabet: short and common ones, no
// two of which begin with the same four letters, and none of which becomes another
// one when a letter is wrong, missing, too many, or changes places with the next. So
// a slip of the hand is found before anything is sent. Their number is a power of
// two, and ten bits each. (A code holds words, not their numbers: the list may grow
// better, but both sides have to have a word to use it.)
var words = strings.Fields(`
acorn actor adapt admiral adobe advice agenda airport alarm album alder algebra alley almond alpine altar
amber amigo anchor angle animal anthem antique anvil apple apricot apron aquatic arcade archer arena arrow
artist ashtray aspen asphalt atlas atom attic autumn avenue avocado awning axle azure bacon badge bagel bakery
balcony ballad bamboo banana banjo banner barley barrel basil basket bathtub battery bazaar beaver bedroom
beetle bell bench berry bicycle binder birch biscuit bishop bison blanket blazer blender blimp blossom board
boat bobbin boiler bonfire bonnet border bottle boulder bouquet bowl bramble brass bread brick bridge bristle
bronze broom brush bubble bucket budget buffalo buggy bulb bumper bundle bunker burger burlap butter cabbage
cabin cable cactus cafe camel canary candle canoe canvas canyon captain caravan carpet carrot cartoon castle
cavern cedar cello cement ceramic cereal chalk chamber chapel cheese cherry chess chicken chimney chisel
chorus cider cinema circle citrus city clam classic cliff clinic cloak clover clown cluster coach coast cobalt
cobra cocoa coffee collar comb comet comic compass concert condor copper coral cork corner cosmos cottage
country cowboy coyote crab cradle crane crater crayon cream crew cricket crimson crocus crumb crystal cube
cuckoo curtain cushion custard cutlery cyclone cymbal cypress dairy dance dawn deacon decimal deer degree
delta denim dentist desert desk detail diagram diamond diesel dinner diploma ditch diver doctor dolphin domino
donkey doodle double dough dove dozen dragon drama drawer dress drift drill drizzle drum duchess duck duet
dungeon dustpan dwarf dynamo eagle easel echo eclipse elastic elbow elegant emblem emerald empire enamel
engine enigma enzyme epic episode equator escape evening expert eyebrow eyelash fabric factory falcon family
fancy farmer fashion faucet felt fence fern fiddle field fiesta figure filter finch finger fireman flag flame
flannel flask fleece flight flint floor flute foam focus folder folk forest formula fortune fossil freckle
fresco friend fringe frog frost fruit fudge fuel funnel furnace fuse future gadget galaxy gallery gamma garage
garden garlic garnet gate gauge gazelle gear gecko genius geology gesture geyser ghost giant gibbon giraffe
glacier glass glen glider globe glory glue goblet golden golf gondola goose gopher gorilla gown grace grain
granite gravel green grid griffin grocery group grove guard guava guest guide guild guitar gully gymnast habit
haddock hallway hammer hamster hand hangar harmony harness harp harvest hawk hazel health heart heather heavy
hedge heel helium helmet herald herb hermit heron hexagon hickory hiking hill hinge hippo history hobby hockey
holiday hollow honey hood horizon hornet horse hostel hour hummus hunter hurdle husky hydrant hyena hymn
iceberg icicle icon idea idol igloo iguana image impala import incense index indigo insect instant invoice
iris island item ivory jacket jaguar jasmine javelin jazz jelly jersey jester jetty jewel jigsaw jogger joker
journal juggler juice jumbo jungle junior karate kayak kebab keeper kelp kennel kettle kilt kimono kingdom
kiosk kitchen kite kitten kiwi knee knight knot koala label lace ladder ladle lagoon lamb lantern laptop larch
laser lasso lattice laundry laurel lava lawyer leader leaf ledger legend lemon lens leopard lesson letter
lever liberty library lichen lilac lily lime linen lion liquid list lizard llama lobster locket lodge logic
lotus lounge lucky lullaby lumber lunar lunch lupin luxury lynx lyric machine magenta magic magnet magpie
mailbox majesty mallet mammal mango manor mansion mantle maple marble marina market marmot marvel mascot mask
mason match matrix meadow meal melody member memory menu mercury mermaid meteor metro mineral minnow mint
minute mirror mixer mobile model mohair molar moment monsoon moon morning mosaic moss motor mouse movie muffin
mule mural muscle museum music muskrat mutton myrtle mystery napkin nation nature navy nebula nectar needle
neon nest network neutron nickel nimble ninja noise nomad north nostril nougat novel nozzle nucleus nugget
nurse nutmeg nylon oasis oatmeal object oboe observe ocean office olive omega onion onyx opal opera optic
orange orbit orchard oregano organ origami osprey ostrich otter outlet oven oxygen oyster ozone pacific
package paddle page pagoda palace palm pancake panda panel panther papaya paper parade parcel parka parsley
pasta path patrol peach peanut pearl pebble pedal pelican pencil penguin pepper perfume phone photo phrase
piano picnic picture pier pigeon pilgrim pillow pilot pine pinto pioneer pirate piston pizza planet plaster
plate plaza plume plywood podium poem polka polo poncho pony popcorn poppy porch potato pottery powder prairie
prawn premium pretzel prince prism proverb pudding pulley pulp puma pupil puppet purple puzzle pyramid python
quarry queen quick quilt quince quiver quiz rabbit raccoon radar radio raft railway rainbow raisin raven
ravine razor reactor recipe record redwood reed region relay relish remedy reptile rescue reserve reward
rhubarb rhyme rhythm rice ring ripple road robin robot rodeo roller roof rooster rope round royal rubber ruby
rudder ruffle ruler rumba runway rustic safari saffron sailor salad salmon salt sample sandal sardine satchel
satin saturn sauce sauna savanna sawdust scale scarf scene school science scooter scout screen script seagull
season secret seminar sesame seven shadow shallow shelf sheriff shield ship shoe shovel shrimp shrub shuttle
sierra signal silence silk silver siren skate sketch skill skipper skirt skunk skyline slalom sled sleeve
slice slogan slope smile smoke snack snail snorkel snow soap soccer sock sofa soil soldier sonata sorbet south
space spaniel sparrow special sphere spider spinach spiral sponge spoon sport spring spruce squad stadium
station steam stereo stone story street studio style subway sugar suit summer sunset surfer surgeon sushi
sweater swift symbol syrup system tablet tackle tadpole talent tank target taste taxi teacher teapot teddy
temple tennis terrace texture theory thermos thicket thimble thistle thorn thread throne thumb thunder tiger
timber tinsel tissue toddler token tomato tonic topaz tornado toucan tower tractor trade trail tram treaty
tree trellis trio trolley trophy trout truck trumpet tuba tulip tundra turban turkey turtle tuxedo twelve twig
typhoon ukulele unicorn unit upland urchin valve vanilla varnish vase vault vector velvet veranda vessel
viaduct victory video villa vinegar vintage virtue vision vitamin volcano volley volume vowel voyage waffle
wagon waiter walnut walrus waltz warrior wave wedding weekend welcome western whale wheat whisker wigwam
window winter wisdom wombat wonder wool world worm wren wrestle wrist yacht yard yeast yellow yogurt zebra
zenith zephyr zero zigzag zinc zipper zodiac
`)
