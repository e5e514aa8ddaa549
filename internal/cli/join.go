package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"bodkin"
	"bodkin/internal/config"
	"bodkin/internal/control"
	"bodkin/peer"

	"github.com/spf13/cobra"
)

func (a *app) joinCommand() *cobra.Command {
	var f pairFlags
	c := &cobra.Command{
		Use:   "join CODE",
		Short: "Pair with the machine that printed a code",
		Long: `Pair with the machine on which 'bodkin invite' has printed a code and waits. Both have
to use the same server. Then both know each other's peer ID, and can give it a name.

Case does not matter, and spaces are as good as hyphens. A slip of the hand in one
of the words is found before anything is sent. Otherwise a code is good for one try:
if it fails, ask for a new one.

The peer ID is printed to standard output; with --json an object with peer, and name
if it was saved.`,
		Example:           "  bodkin join 42-lantern-copper\n  bodkin join 42 lantern copper --name desktop",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeCode,
		RunE: func(c *cobra.Command, args []string) error {
			code := strings.Join(args, " ")
			if err := bodkin.CheckCode(code); err != nil {
				return &codeError{codeUsage, err}
			}
			if err := a.checkNewName(f.name); err != nil {
				return err
			}
			n, err := a.open(c.Context())
			if err != nil {
				return err
			}
			return end(c.Context(), n, a.join(c.Context(), n, code, f))
		},
	}
	a.addNodeFlags(c)
	f.add(c)
	return c
}

func (a *app) join(ctx context.Context, n control.Node, code string, f pairFlags) error {
	id, err := n.Join(ctx, code)
	if err != nil {
		return err
	}
	return a.paired(ctx, id, f)
}

// completeCode suggests words, in one argument or in several.
func completeCode(_ *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
	before := ""
	if len(args) > 0 {
		before = strings.ToLower(strings.Join(args, "-")) + "-"
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	for _, code := range bodkin.CompleteCode(before + typed) {
		code = strings.TrimPrefix(code, before)
		if before != "" {
			code = strings.TrimSuffix(code, "-")
		}
		if strings.HasSuffix(code, "-") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		out = append(out, code)
	}
	return out, directive
}

// checkNewName finds out before a code is used what is wrong with the name that a peer
// is to get.
func (a *app) checkNewName(name string) error {
	if name == "" {
		return nil
	}
	if err := config.CheckName(name); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	c, err := a.file()
	if err != nil {
		return err
	}
	if id, taken := c.Peers[name]; taken {
		return fmt.Errorf("--name: %w: %s is peer %s", config.ErrNameTaken, name, id.Short())
	}
	return nil
}

// paired prints who the other side is, and gives it a name.
func (a *app) paired(ctx context.Context, id peer.ID, f pairFlags) error {
	if !a.json {
		if err := a.print(nil, "%s", id); err != nil {
			return err
		}
	}
	name, err := a.saveName(ctx, id, f.name)
	if a.json {
		if err := a.print(pairAnswer{id, name}, ""); err != nil {
			return err
		}
	} else if err == nil {
		a.sayPaired(id, name)
	}
	return err
}

// saveName writes a peer into the address book under a name that was given, or that is
// asked for where there is somebody to ask. A peer that has a name keeps it.
func (a *app) saveName(ctx context.Context, id peer.ID, name string) (string, error) {
	if known := a.petname(id); known != "" && name == "" {
		return known, nil
	}
	path, err := a.configPath()
	if err != nil {
		return "", err
	}
	asks := name == "" && !a.json && isTerminal(a.in)
	in := bufio.NewReader(a.in)
	for {
		if asks {
			if name, err = a.askName(ctx, in, id); err != nil {
				return "", err
			}
		}
		if name == "" {
			return "", nil
		}
		err := config.AddPeer(path, name, id)
		if err == nil {
			return name, nil
		}
		if !asks {
			return "", fmt.Errorf("paired, but the name is not saved: %w", err)
		}
		a.say("%v", err)
	}
}

// askName asks for a name; none is one, too. A Read of standard input cannot be broken
// off: one that is under way when ctx ends ends with the process.
func (a *app) askName(ctx context.Context, in *bufio.Reader, id peer.ID) (string, error) {
	_, _ = fmt.Fprintf(a.err, "name for peer %s (empty: none): ", id.Short())
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := in.ReadString('\n')
		got <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case t := <-got:
		if errors.Is(t.err, io.EOF) {
			return t.line, nil
		}
		return t.line, t.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// sayPaired says what can be done now.
func (a *app) sayPaired(id peer.ID, name string) {
	if name == "" {
		a.say("paired; give the peer a name with: bodkin peer add NAME %s", id)
		return
	}
	a.say("paired with %s: bodkin ping %s, bodkin dial %s, bodkin listen --allow %s", name, name, name, name)
}
