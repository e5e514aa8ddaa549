package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"

	"bodkin/nat"
	"bodkin/natlab"

	"github.com/spf13/cobra"
)

func (a *app) labPresetsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "presets",
		Short: "List the kinds of NATs that the lab has",
		Long: `List the NATs of the lab: what each does, in the words of RFC 4787, where it is met,
and on which beds it can be built. A second line is the box behind the first.

  EIM, ADM, APDM   mapping: endpoint-independent, address-dependent,
                   address and port-dependent
  EIF, ADF, APDF   filtering: the same
  ports            how the port outside is chosen
  hairpin          what comes of packets from inside to another host's endpoint
                   outside: nothing, or they arrive from the sender's endpoint
                   inside or outside
  beds             sim: virtual time; model: namespaces and a model of the NAT;
                   kernel: namespaces and Linux itself as the NAT`,
		Example: "  bodkin lab presets\n  bodkin lab presets --json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.labPresets() },
	}
}

// presetInfo is a line of `bodkin lab presets --json`.
type presetInfo struct {
	Name   natlab.Preset `json:"name"`
	Text   string        `json:"text"`
	Boxes  []boxInfo     `json:"boxes"` // from the inside out
	Beds   []string      `json:"beds"`
	Shared bool          `json:"shared"` // two sides with it are behind one outermost box
	IPv6   bool          `json:"ipv6"`
}

type boxInfo struct {
	Mapping   string   `json:"mapping"`
	Filtering string   `json:"filtering"`
	Ports     string   `json:"ports"`
	Hairpin   string   `json:"hairpin"`
	Besides   []string `json:"besides,omitempty"`
}

func (a *app) labPresets() error {
	if a.json {
		out := json.NewEncoder(a.out)
		for _, p := range natlab.Presets() {
			if err := out.Encode(infoOf(p)); err != nil {
				return err
			}
		}
		return nil
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { _, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) }
	line("PRESET", "MAPPING", "FILTERING", "PORTS", "HAIRPIN", "BEDS", "BESIDES")
	for _, p := range natlab.Presets() {
		name, beds := string(p), strings.Join(bedsOf(p), " ")
		for _, b := range infoOf(p).Boxes {
			line(name, b.Mapping, b.Filtering, b.Ports, b.Hairpin, beds, strings.Join(b.Besides, ", "))
			name, beds = "", ""
		}
	}
	_ = w.Flush() // to memory
	text := strings.Builder{}
	for l := range strings.Lines(table.String()) {
		text.WriteString(strings.TrimRight(l, " \n") + "\n")
	}
	text.WriteString("\n")
	for _, p := range natlab.Presets() {
		text.WriteString(wrapped(string(p), p.Text(), 22, 88))
	}
	_, err := fmt.Fprint(a.out, text.String())
	return err
}

func infoOf(p natlab.Preset) presetInfo {
	i := presetInfo{Name: p, Text: p.Text(), Beds: bedsOf(p), Shared: p.Shared(), IPv6: p.IPv6()}
	for _, n := range p.Boxes() {
		i.Boxes = append(i.Boxes, describe(n))
	}
	return i
}

// bedsOf are the beds on which a preset can be built.
func bedsOf(p natlab.Preset) []string {
	if p.Kernel() {
		return []string{bedSim, bedModel, bedKernel}
	}
	return []string{bedSim, bedModel}
}

func describe(n natlab.NAT) boxInfo {
	return boxInfo{
		Mapping: short(n.Mapping, "M"), Filtering: short(n.Filtering, "F"),
		Ports: portsOf(n), Hairpin: hairpins[n.Hairpinning], Besides: besides(n),
	}
}

// short is the usual abbreviation of a behaviour, for mapping (M) or filtering (F).
func short(b nat.Behavior, of string) string {
	switch b {
	case nat.EndpointIndependent:
		return "EI" + of
	case nat.AddressDependent:
		return "AD" + of
	case nat.AddressAndPortDependent:
		return "APD" + of
	case nat.Unknown, nat.None:
	}
	return "none"
}

var hairpins = map[natlab.Hairpinning]string{
	natlab.NoHairpinning: "no", natlab.InternalSource: "inside", natlab.ExternalSource: "outside",
}

func portsOf(n natlab.NAT) string {
	var text string
	switch {
	case !n.Translates():
		return "as they are"
	case n.Conntrack && n.Mapping == nat.AddressAndPortDependent, n.Ports.Allocation == natlab.Random:
		text = "random"
	case n.Ports.Allocation == natlab.Sequential:
		text = "sequential"
	default:
		text = "preserving"
	}
	if n.Ports.BlockSize > 0 {
		text += fmt.Sprintf(", of a block of %d", n.Ports.BlockSize)
	}
	return text
}

// besides are words for what else is worth knowing of a box.
func besides(n natlab.NAT) (out []string) {
	say := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(n.Conntrack, "Linux")
	say(n.KeepsEarly, "keeps early packets")
	say(n.UDP.Refusal != natlab.RefuseSilently, "answers strangers")
	say(n.ICMP.TypeAgnostic, "any ICMP query by its id")
	say(n.UDP.Replied > 0, "forgets after %v", n.UDP.Replied)
	say(n.Busy > 0, "others take %g ports/s", n.Busy)
	say(n.Limits.Host > 0, "%d sessions a host", n.Limits.Host)
	say(n.Block.UDP, "no UDP")
	say(n.Block.TCP && n.Block.TCPBut == 0, "no TCP")
	say(n.Block.TCP && n.Block.TCPBut != 0, "TCP to %d only", n.Block.TCPBut)
	say(n.Block.ICMP, "no ICMP")
	return out
}

// wrapped is a term with a text beside it, broken into lines of that width.
func wrapped(term, text string, indent, width int) string {
	var out strings.Builder
	line := fmt.Sprintf("%-*s", indent, term)
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > width {
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			line = strings.Repeat(" ", indent)
		}
		line += word + " "
	}
	return out.String() + strings.TrimRight(line, " ") + "\n"
}
