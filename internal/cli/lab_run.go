package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bodkin/internal/labrun"
	"bodkin/natlab"
	"bodkin/natlab/netbed"

	"github.com/spf13/cobra"
)

type labRunFlags struct {
	linkFlags
	a, b    string
	bed     string
	on      []string
	pcap    string
	timeout time.Duration
	seed    uint64
}

func (a *app) labRunCommand() *cobra.Command {
	var f labRunFlags
	c := &cobra.Command{
		Use:   "run --on HOST=COMMAND...",
		Short: "Run any programs behind the lab's NATs",
		Long: `Build the lab, and run programs of yours in it: on host "a", on host "b", each behind
a NAT, and on "server", which is not. A shell runs each COMMAND; give --on several
times for more. They find the addresses in their environment:

  NATLAB_A, NATLAB_B, NATLAB_SERVER           of the hosts themselves
  NATLAB_A_OUTSIDE, NATLAB_B_OUTSIDE          from which others see them
  NATLAB_A6, NATLAB_A_OUTSIDE6, ...           the same in IPv6, with --ipv6
  NATLAB_HOST                                 the host's name: a, b or server

Write them in single quotes, for they mean nothing outside of the lab.

What they print comes out line by line, with the host's name before it. The run is
over when all commands on a and b have ended; those on the server are stopped then.
It ends with the exit code of the first command that failed by itself, with 0 if
none did, and with 1 when the time was up or the lab could not be built.

--pcap writes what each link carried, both ways, as packets entered it: home-a.pcap
is the access link of home A, server.pcap that of the server. With --bed kernel the
wires inside the homes are not recorded.`,
		Example: `  bodkin lab run --a linux --b cgnat \
    --on a='while sleep 1; do echo hello; done | socat - UDP:$NATLAB_B_OUTSIDE:7000,sourceport=7000' \
    --on b='while sleep 1; do echo hello; done | socat - UDP:$NATLAB_A_OUTSIDE:7000,sourceport=7000'
  bodkin lab run --a full-cone --b symmetric-random --loss 0.05 --pcap pcaps \
    --on server='./my-tracker' --on a='./my-app $NATLAB_SERVER' --on b='./my-app $NATLAB_SERVER'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := f.programs()
			if err != nil {
				return &codeError{codeUsage, err}
			}
			if err := netbed.Enter(); err != nil {
				return err
			}
			return a.labRun(c.Context(), f, p)
		},
	}
	n := c.Flags()
	n.StringVar(&f.a, "a", string(natlab.Linux), "`PRESET` of home A's NAT; see bodkin lab presets")
	n.StringVar(&f.b, "b", string(natlab.Linux), "`PRESET` of home B's NAT")
	n.StringVar(&f.bed, "bed", bedModel, "`BED` of the lab: model, or kernel for Linux itself as the NATs")
	n.StringArrayVar(&f.on, "on", nil, "`HOST=COMMAND` to run; the hosts are a, b and server")
	n.StringVar(&f.pcap, "pcap", "", "`FOLDER` for packet captures, a file a link")
	n.DurationVar(&f.timeout, "timeout", 0, "time for all of it (default: no end)")
	n.Uint64Var(&f.seed, "seed", 0, "chance of the model and the links (default: another each time)")
	f.add(n)
	suggestBeds(c, bedModel, bedKernel)
	suggest(c, "a", suggestPreset)
	suggest(c, "b", suggestPreset)
	suggest(c, "on", cobra.FixedCompletions([]string{"a=", "b=", "server="}, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp))
	return c
}

// programs is what the flags describe.
func (f *labRunFlags) programs() (labrun.Programs, error) {
	if err := errors.Join(f.check(), checkBed(f.bed, bedModel, bedKernel)); err != nil {
		return labrun.Programs{}, err
	}
	if f.timeout < 0 {
		return labrun.Programs{}, errors.New("--timeout cannot be negative")
	}
	o := f.options()
	o.Seed = f.seed
	var errA, errB error
	o.PresetA, errA = presetOn(f.bed, f.a)
	o.PresetB, errB = presetOn(f.bed, f.b)
	if err := errors.Join(errA, errB); err != nil {
		return labrun.Programs{}, err
	}
	p := labrun.Programs{Topology: natlab.TwoHomes(o), Bed: realBeds[f.bed], Pcap: f.pcap}
	for _, on := range f.on {
		host, line, ok := strings.Cut(on, "=")
		if !ok || strings.TrimSpace(line) == "" || !slices.Contains(labHosts, host) {
			return p, fmt.Errorf("--on %q: it needs the form HOST=COMMAND, with a HOST of: %s", on, strings.Join(labHosts, ", "))
		}
		p.Commands = append(p.Commands, labrun.Command{Host: host, Line: line})
	}
	if !slices.ContainsFunc(p.Commands, func(c labrun.Command) bool { return c.Host != "server" }) {
		return p, errors.New("nothing to run: give --on a=COMMAND, --on b=COMMAND or both")
	}
	return p, nil
}

var labHosts = []string{"a", "b", "server"}

// programLine is a line of `bodkin lab run --json`: of output, or the end of a
// command.
type programLine struct {
	Host    string        `json:"host"`
	Command int           `json:"command"` // from 1, in the order given
	Stream  labrun.Stream `json:"stream,omitempty"`
	Text    *string       `json:"text,omitempty"`
	Code    *int          `json:"code,omitempty"`
	Stopped bool          `json:"stopped,omitempty"`
}

func (a *app) labRun(ctx context.Context, f labRunFlags, p labrun.Programs) error {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.timeout, errTimeUp)
		defer cancel()
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	labels := labelsOf(p.Commands)
	p.Started = func(lab *netbed.Lab) {
		for _, h := range labHosts {
			a.say("%s is %v, from outside %v%s", h, lab.Host(h).Addr(), labrun.Outside(p.Topology, h),
				map[string]string{"a": ", behind " + f.a, "b": ", behind " + f.b}[h])
		}
	}
	written := func(err error) {
		if err != nil {
			stop(err) // nobody reads it any more
		}
	}
	p.Output = func(n int, s labrun.Stream, text string) {
		l := programLine{Host: p.Commands[n].Host, Command: n + 1, Stream: s, Text: &text}
		switch {
		case a.json:
			written(json.NewEncoder(a.out).Encode(l))
		case s == labrun.Stderr:
			a.say("%s| %s", labels[n], text)
		default:
			written(a.print(l, "%s| %s", labels[n], text))
		}
	}
	p.Ended = func(e labrun.Ended) {
		l := programLine{Host: p.Commands[e.Command].Host, Command: e.Command + 1, Code: &e.Code, Stopped: e.Stopped}
		switch {
		case a.json:
			written(json.NewEncoder(a.out).Encode(l))
		case e.Code != 0 && !e.Stopped:
			a.say("%s| ended with %d", labels[e.Command], e.Code)
		}
	}
	code, err := p.Run(ctx)
	if err == nil && code != 0 {
		err = &codeError{code, fmt.Errorf("the first program that failed ended with %d", code)}
	}
	return err
}

// labelsOf are the hosts' names, with a number where several commands run on one,
// and spaces to make them equally long.
func labelsOf(commands []labrun.Command) []string {
	var out []string
	longest := 0
	for i, c := range commands {
		before, all := 0, 0
		for j, other := range commands {
			if other.Host == c.Host {
				all++
				if j <= i {
					before++
				}
			}
		}
		label := c.Host
		if all > 1 {
			label = fmt.Sprintf("%s#%d", c.Host, before)
		}
		out, longest = append(out, label), max(longest, len(label))
	}
	for i := range out {
		out[i] = fmt.Sprintf("%-*s ", longest, out[i])
	}
	return out
}
