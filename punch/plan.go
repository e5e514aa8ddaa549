package punch

import (
	"bytes"
	"net/netip"
	"time"

	"bodkin/nat"
)

// Name says which way of opening a hole a [Tactic] is.
type Name string

// Names of tactics.
const (
	// Plain probes the endpoints at which the peer is known, and those that its
	// own probes come from.
	Plain Name = "plain"
	// Predict is against a NAT with a port for every destination that counts up:
	// one side probes the next ports of the other, or both do.
	Predict Name = "predict"
	// Birthday is against random ports: the side behind such a NAT opens many
	// sockets, the other one tries many ports.
	Birthday Name = "birthday"
	// BlockBirthday is a Birthday among the few ports of a carrier's customer.
	// Both sides may be behind such a NAT.
	BlockBirthday Name = "block birthday"
	// PlainTCP connects to the TCP endpoints at which the peer is known, while the peer
	// does the same, and takes the connections that come.
	PlainTCP Name = "tcp"
	// PredictTCP and BirthdayTCP are the same as by UDP, with connects for shots.
	PredictTCP  Name = "tcp predict"
	BirthdayTCP Name = "tcp birthday"
	// Mixed predicts the ports of one side, and tries those of the other's block.
	Mixed Name = "mixed"
)

// Tactic is one side's part in one way to open a hole, in a race of several.
type Tactic struct {
	Name      Name
	Transport Transport
	// After is how long it leaves the race to better transports.
	After time.Duration
	// Openers are the TTLs of the packets that open our own NAT first and die
	// before they can reach the peer's. Hold is how long full-TTL probes wait
	// behind them.
	Openers []uint8
	Hold    time.Duration
	// Sockets is how many more sockets we open, and probe the peer's endpoint
	// from. If Quiet, their packets die before they reach the peer's NAT at first.
	Sockets int
	Quiet   bool
	// Aim is which ports of the peer's address we try, with Shots packets.
	Aim   Aim
	Shots int
}

// Aim chooses among the ports of the peer's address.
type Aim struct {
	Order Order
	// Low and High bound a Spread.
	Low, High uint16
	// Last, Delta and Ahead are the sequence that a Sweep or a Diagonal follows:
	// its latest port that is known, its step, and how many steps others are
	// expected to have taken since. Width is how many more or fewer.
	Last         uint16
	Delta        int16
	Ahead, Width int
	// Shift is set on the one side of a Diagonal that makes up for what the two
	// expectations are wrong by.
	Shift bool
}

// Order is the order in which an Aim's ports are tried.
type Order uint8

// Orders.
const (
	// NoAim tries none.
	NoAim Order = iota
	// Sweep tries the ports of a sequence, the most probable first.
	Sweep
	// Diagonal tries the ports of a sequence in their order, each of our mappings
	// towards the peer's mapping of the same number.
	Diagonal
	// Spread tries ports at random, none twice.
	Spread
)

const (
	// holdForEarly covers what the peer's NAT may open later than ours: a slow hop
	// inside its home (Wi-Fi) and the server's jitter.
	holdForEarly = 15 * time.Millisecond
	// holdReserve is how long a reserve waits: until a peer that was told late, since
	// packets got lost, has opened its NAT too.
	holdReserve = 600 * time.Millisecond

	// holdQuiet is how long a side waits that would spoil with a probe of its own what
	// the peer's shots look for: where the first port of a Linux NAT was moved, those
	// of the shots that follow are moved to the same place. The peer does not wait, and
	// ends the hold as soon as it is heard.
	holdQuiet = 2 * time.Second

	// headOfUDP is how long TCP waits where UDP is likely to be there first: each
	// connection is a state in both NATs for long.
	headOfUDP = 500 * time.Millisecond

	// predictConnects bounds the connects at predicted ports, birthdayConnects those at
	// random ones, and birthdayPorts the ports that we connect from against those: 128
	// against 1,000 of 64512 hit with 86%. Each connect is a descriptor for a second.
	predictConnects  = 48
	birthdayConnects = 1000
	birthdayPorts    = 128

	// birthdaySockets against birthdayShots of 64512 ports hit with 99.8%.
	birthdaySockets = 256
	birthdayShots   = 1600
	// blockSockets are enough to meet shots at the ports of a block; against
	// birthdayShots of blockLimit ports they hit with 99.8%. More ports than that are
	// as good as any.
	blockSockets = 64
	blockLimit   = 1 << 14
	// leastFit is how many mappings have to fit, on average, that blocks of both sides
	// are worth an attempt.
	leastFit = 1. / 16
	// predictSockets come beside the one that the peer is expected to meet, whose
	// mapping towards it may be an old one.
	predictSockets = 2
	// castLimit bounds the mappings that a side behind a carrier's NAT makes for
	// one attempt; a quarter of the customer's block stays free in any case.
	castLimit = 384
	// sweepLimit bounds the window of a prediction.
	sweepLimit = 600
	// diagonalLimit bounds the mappings that a prediction by both sides makes.
	diagonalLimit = 900
	// shiftShots are the shots at each shift of a Diagonal.
	shiftShots = 3
	// sureSweep and sureDiagonal are how far a window goes beyond what is expected, at
	// the least: a page that somebody opens next door takes ports, too. The sweep takes
	// none itself.
	sureSweep    = 64
	sureDiagonal = 6
)

// openerTTLs die one router out, which is the home's own. A carrier's NAT behind it
// is opened by the first packet at full TTL.
var openerTTLs = []uint8{2}

// Plan is our part in the race for a pair: a pure function of both sides, so that
// both peers compute parts that fit each other. Of the tactics of a transport that both
// sides can use, the first is always Plain: evidence beats labels.
func Plan(self, other Side) []Tactic {
	tactics := append(planUDP(self, other), planTCP(self, other)...)
	after := time.Duration(0)
	if len(tactics) > 0 {
		after = afterBetter
	}
	return append(tactics, planICMP(self, other, after)...)
}

// planTCP is our part by TCP.
func planTCP(self, other Side) []Tactic {
	if !self.Abilities.Has(ByTCP) || !other.Abilities.Has(ByTCP) {
		return nil
	}
	plain := Tactic{Name: PlainTCP, Transport: TCP}
	if self.Abilities.Has(ByUDP) && other.Abilities.Has(ByUDP) && len(self.Observed) > 0 && len(other.Observed) > 0 {
		plain.After = headOfUDP
	}
	tactics := []Tactic{plain}
	if t := hardTCP(self.byTCP(), other.byTCP()); t.Name != "" {
		t.Transport, t.After = TCP, plain.After
		tactics = append(tactics, t)
	}
	return tactics
}

// hardTCP is our part by TCP where a side has another port for every destination. A
// connect costs more than a packet: where both sides would have to guess, the two leave
// it.
func hardTCP(self, other Side) (t Tactic) {
	if !observed4(self) || !observed4(other) {
		return t
	}
	us, them := predictability(self.Profile), predictability(other.Profile)
	if us != stable && them != stable && (us != counted || them != counted) {
		return t
	}
	t = hard(self, other)
	switch t.Quiet = false; t.Name {
	case Predict:
		t.Name, t.Shots, t.Sockets = PredictTCP, min(t.Shots, predictConnects), 0
		t.Aim.Width = min(t.Aim.Width, predictConnects/(2*shiftShots))
	case Birthday, BlockBirthday:
		t.Name, t.Shots, t.Sockets = BirthdayTCP, min(t.Shots, birthdayConnects), min(t.Sockets, birthdayPorts)
	default:
	}
	return t
}

// byTCP is a side as planning sees it: with what is known of its TCP, or else of its UDP.
func (s Side) byTCP() Side {
	if len(s.ObservedTCP) > 0 {
		s.Observed = s.ObservedTCP
	}
	if s.TCP.Mapping != nat.Unknown {
		s.Profile = s.TCP
		return s
	}
	s.Profile.Ports = nat.Ports{} // the counters are others
	return s
}

func planUDP(self, other Side) []Tactic {
	if !self.Abilities.Has(ByUDP) || !other.Abilities.Has(ByUDP) {
		return nil
	}
	plain := Tactic{Name: Plain, Transport: UDP}
	if other.Profile.KeepsEarly == nat.Yes {
		plain.Openers, plain.Hold = openerTTLs, holdForEarly
	}
	tactics := []Tactic{plain}
	if !observed4(self) || !observed4(other) {
		return tactics
	}
	if t := hard(self, other); t.Name != "" {
		t.Transport = UDP
		if t.Quiet {
			tactics[0].Openers, tactics[0].Hold = []uint8{t.fromSockets()[0].ttl}, holdQuiet
		}
		tactics = append(tactics, t)
	}
	return tactics
}

// hard is our part where a side has another port for every destination.
func hard(self, other Side) (t Tactic) {
	us, them := predictability(self.Profile), predictability(other.Profile)
	switch {
	case us == stable && them == stable, us == unclear, them == unclear:
	case them == stable:
		// What comes from any of our ports gets in, or is met by the peer's shots.
		if !open(other.Profile) {
			t = meet(us, self.Profile.Ports, other.Profile)
		}
	case us == stable:
		if !open(self.Profile) {
			t = seek(them, other.Profile.Ports)
		}
	case us == counted && them == counted:
		t = Tactic{Name: Predict, Aim: sequence(Diagonal, other.Profile.Ports)}
		// Errors of both sides rarely add up.
		t.Aim.Width = (t.Aim.Width + sequence(Diagonal, self.Profile.Ports).Width) * 3 / 4
		t.Aim.Shift = bytes.Compare(self.ID[:], other.ID[:]) < 0
		t.Shots = min(shiftShots*(2*t.Aim.Width+1), diagonalLimit)
	case us == boxed && them == boxed:
		if worthwhile(self.Profile.Ports, other.Profile.Ports) {
			t = Tactic{Name: BlockBirthday, Aim: spread(other.Profile.Ports)}
			t.Shots = min(casts(self.Profile.Ports), size(t.Aim))
		}
	case us == counted && them == boxed:
		if worthwhile(other.Profile.Ports) {
			t = Tactic{Name: Mixed, Aim: spread(other.Profile.Ports), Shots: casts(other.Profile.Ports)}
		}
	case us == boxed && them == counted:
		if worthwhile(self.Profile.Ports) {
			t = Tactic{Name: Mixed, Aim: sequence(Diagonal, other.Profile.Ports), Shots: casts(self.Profile.Ports)}
		}
	}
	return t
}

// worthwhile reports whether enough mappings can be made in blocks that are tried
// blindly: of each pair of mappings, one of ours and one of the peer's, as many fit
// each other as the product of what is made of each block.
func worthwhile(blocks ...nat.Ports) bool {
	fit := 1.0
	for _, b := range blocks {
		fit *= float64(casts(b)) / float64(size(spread(b)))
	}
	return fit >= leastFit
}

// seek is the part of the side whose own port is known: it tries the other's.
func seek(them foresight, p nat.Ports) Tactic {
	switch them {
	case counted:
		t := Tactic{Name: Predict, Aim: sequence(Sweep, p)}
		t.Shots = min(t.Aim.Ahead+t.Aim.Width, 2*t.Aim.Width+1, sweepLimit)
		return t
	case boxed:
		t := Tactic{Name: BlockBirthday, Aim: spread(p)}
		t.Shots = min(size(t.Aim), birthdayShots)
		return t
	default:
	}
	return Tactic{Name: Birthday, Aim: Aim{Order: Spread, Low: firstPort, High: lastPort}, Shots: birthdayShots}
}

// meet is the mirror of seek: the part of the side whose ports are sought.
func meet(us foresight, p nat.Ports, other nat.Profile) Tactic {
	// Where the peer's NAT keeps what comes early, each of our packets that gets
	// there would spoil the very port that it was sent from.
	quiet := other.KeepsEarly != nat.No
	switch us {
	case counted:
		return Tactic{Name: Predict, Sockets: predictSockets, Quiet: quiet}
	case boxed:
		return Tactic{Name: BlockBirthday, Sockets: max(1, min(blockSockets, size(spread(p))/4)), Quiet: quiet}
	default:
	}
	return Tactic{Name: Birthday, Sockets: birthdaySockets, Quiet: quiet}
}

// foresight is how well a peer can tell the port of a mapping towards it.
type foresight uint8

const (
	unclear foresight = iota // not measured
	stable                   // it is the one that the server sees
	counted                  // it is one of the next in a sequence
	boxed                    // it is one of a block
	blind                    // it can be any
)

func predictability(p nat.Profile) foresight {
	switch p.Mapping {
	case nat.None, nat.EndpointIndependent:
		return stable
	case nat.AddressDependent, nat.AddressAndPortDependent:
	default:
		return unclear
	}
	switch {
	case p.Ports.Allocation == nat.Sequential && p.Ports.Delta != 0 && p.Ports.Last != 0:
		return counted
	case p.Ports.Allocation == nat.Block && p.Ports.Low != 0 && p.Ports.High > p.Ports.Low && size(spread(p.Ports)) <= blockLimit:
		return boxed
	case p.Ports.Allocation == nat.UnknownAllocation, p.Ports.Allocation == nat.Sequential:
		return unclear // it is being measured
	}
	return blind
}

// open reports whether a NAT lets in what comes from another port of an address
// that was sent to.
func open(p nat.Profile) bool {
	switch p.Filtering {
	case nat.None, nat.EndpointIndependent, nat.AddressDependent:
		return true
	default:
		return false
	}
}

// casts is how many mappings one attempt may make in a block.
func casts(p nat.Ports) int { return min(castLimit, size(spread(p))*3/4) }

func observed4(s Side) bool { return endpoint4(s).IsValid() }

// endpoint4 is where the server sees a side by IPv4.
func endpoint4(s Side) netip.AddrPort {
	for _, e := range s.Observed {
		if e.Addr().Is4() && probeable(e) {
			return e
		}
	}
	return netip.AddrPort{}
}
