package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"bodkin/internal/config"
	"bodkin/peer"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// settingKey marks the flags that the configuration file can set.
const settingKey = "bodkin_setting"

func markSettings(f *pflag.FlagSet) {
	f.VisitAll(func(f *pflag.Flag) { markSetting(f) })
}

func markSetting(f *pflag.Flag) {
	if f.Annotations == nil {
		f.Annotations = make(map[string][]string)
	}
	f.Annotations[settingKey] = []string{"true"}
}

func isSetting(f *pflag.Flag) bool { return f.Annotations[settingKey] != nil }

// settings are the names of all flags that the configuration file can set.
func settings() (names []string) {
	var c cobra.Command
	(&app{}).addNodeFlags(&c)
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if isSetting(f) {
			names = append(names, f.Name)
		}
	})
	return names
}

// configPath is where the configuration file is, whether there is one or not.
func (a *app) configPath() (string, error) {
	if a.configFlag != "" {
		return a.configFlag, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("%w; name a configuration file with --config", err)
	}
	return filepath.Join(dir, "bodkin", "config.toml"), nil
}

// file is the configuration file, read once. Without one, and without --config, it is
// as if it were empty.
func (a *app) file() (*config.Config, error) {
	if c := a.fileRead.Load(); c != nil {
		return c, nil
	}
	c, err := a.readFile()
	if err == nil {
		a.fileRead.Store(c)
	}
	return c, err
}

// readFile reads the configuration file as it is now.
func (a *app) readFile() (*config.Config, error) {
	path, err := a.configPath()
	if err != nil {
		return &config.Config{}, nil //nolint:nilerr // as a machine without a file
	}
	c, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if a.configFlag == "" {
			return &config.Config{Path: path}, nil
		}
		return nil, &codeError{codeUsage, fmt.Errorf("--config: %w", err)}
	}
	if err != nil {
		return nil, err
	}
	return c, c.CheckSettings(settings())
}

// noteGiven notes which settings the command line has: who gives some means a node of
// his own, where another one runs. What the environment says holds for all.
func (a *app) noteGiven(flags *pflag.FlagSet) {
	flags.Visit(func(f *pflag.Flag) {
		if isSetting(f) {
			a.given = append(a.given, f.Name)
		}
	})
}

// fromFile sets the flags that neither the command line nor the environment has from
// the configuration file.
func (a *app) fromFile(flags *pflag.FlagSet) error {
	used := false
	flags.VisitAll(func(f *pflag.Flag) {
		used = used || isSetting(f)
		if f.Name == "server" && f.Changed && !slices.Contains(a.given, f.Name) {
			a.given = append(a.given, f.Name) // it says which node is meant, wherever it stands
		}
	})
	if !used {
		return nil
	}
	c, err := a.file()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range c.Settings {
		f := flags.Lookup(s.Name)
		if f == nil || !isSetting(f) || f.Changed {
			continue
		}
		if err := set(f, s, filepath.Dir(c.Path)); err != nil {
			errs = append(errs, c.Wrong(s.At, s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// set gives a flag what the file says. Paths are relative to the file's folder.
func set(f *pflag.Flag, s config.Setting, dir string) error {
	values := append([]string{}, s.Values...) // not nil: an empty list is one
	if slices.Contains(fileFlags, f.Name) {
		for i, v := range values {
			if v != "" && !filepath.IsAbs(v) {
				values[i] = filepath.Join(dir, v)
			}
		}
	}
	f.Changed = true
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	if s.List {
		return errors.New("it needs one value, not a list")
	}
	if err := f.Value.Set(values[0]); err != nil {
		if what := needs[f.Value.Type()]; what != "" {
			err = fmt.Errorf("%q: it needs %s", values[0], what)
		}
		return err
	}
	return nil
}

// peer reads a PEER argument: a petname or an ID.
func (a *app) peer(text string) (peer.ID, error) {
	c, err := a.file()
	if err != nil {
		return peer.ID{}, err
	}
	id, err := c.Peer(text)
	if err != nil {
		return id, &codeError{codeUsage, err}
	}
	return id, nil
}

// name is what people call a peer: its petname, or the beginning of its ID.
func (a *app) name(id peer.ID) string {
	if name := a.petname(id); name != "" {
		return name
	}
	return id.Short()
}

// petname is a peer's name in the address book, or "". A file that is wrong was told
// of before.
func (a *app) petname(id peer.ID) string {
	c, err := a.file()
	if err != nil {
		return ""
	}
	return c.Name(id)
}

// named is an ID with its petname, if there is one.
func (a *app) named(id peer.ID) string {
	if name := a.petname(id); name != "" {
		return fmt.Sprintf("%s (%s)", id, name)
	}
	return id.String()
}

// allowFlags say who may connect.
type allowFlags struct {
	peers []string
	known bool
}

func (f *allowFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.peers, "allow", nil, "`PEER` that may connect; give it again for more (default: everybody who knows this node's ID)")
	c.Flags().BoolVar(&f.known, "allow-known", false, "let everybody in the address book connect, as it is at any time, and nobody else but those of --allow")
}

// allowed are those who may connect: nil for everybody.
func (a *app) allowed(f allowFlags) (out []peer.ID, err error) {
	for _, text := range f.peers {
		id, err := a.peer(text)
		if err != nil {
			return nil, &codeError{codeUsage, fmt.Errorf("--allow: %w", err)}
		}
		out = append(out, id)
	}
	if !f.known {
		return out, nil
	}
	c, err := a.file()
	if err != nil {
		return nil, err
	}
	for _, name := range c.Names() {
		if id := c.Peers[name]; !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if out == nil {
		return nil, &codeError{codeUsage, errors.New("--allow-known: the address book is empty, so that nobody could connect; add peers with `bodkin peer add NAME ID`")}
	}
	return out, nil
}

const configHelp = `One file says how a node is, whom it knows and what bodkin up does: it is TOML, and
stands in bodkin/config.toml in the configuration folder; --config and
BODKIN_CONFIG name another.

  # Settings: the flags that node commands share, without the dashes.
  server = "bodkin://192.0.2.10:3478/tt3i..."
  key = "node.key"             # paths are relative to the folder of this file

  # The address book: names for peers. See bodkin peer.
  [peers]
  laptop = "ajo3..."

  # What bodkin up listens to here, and where it comes out at the peer; with
  # reverse = true the peer listens, and it comes out here.
  [[forward]]
  listen = "127.0.0.1:2222"
  peer = "laptop"              # a name, or an ID
  to = "localhost:22"
  protocol = "tcp"             # or "udp"; tcp if it is left out

  # What a peer may reach through this machine; nothing without it.
  [[allow]]
  peer = "laptop"
  to = "localhost:22"
  protocol = "tcp"

A flag wins over its variable, and that over the file. Unknown keys are errors.`

func configTopic() *cobra.Command {
	return &cobra.Command{Use: "config", Short: "What stands in the configuration file", Long: configHelp}
}
