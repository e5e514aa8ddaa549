package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"bodkin/portmap"
)

// tickets is the file of what `bodkin map add` left on routers.
type tickets struct {
	path string
	all  []portmap.Ticket
}

// openTickets reads the file. What has ended since is left out.
func openTickets() (*tickets, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("list of mappings: %w", err)
	}
	t := &tickets{path: filepath.Join(dir, "bodkin", "mappings.json")}
	b, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list of mappings: %w", err)
	}
	if err := json.Unmarshal(b, &t.all); err != nil {
		return nil, fmt.Errorf("list of mappings %s: %w; remove it, and leases end by themselves", t.path, err)
	}
	now := time.Now()
	t.all = slices.DeleteFunc(t.all, func(x portmap.Ticket) bool { return !x.Until.IsZero() && x.Until.Before(now) })
	return t, nil
}

// nonce is that of a mapping which is asked for once more.
func (t *tickets) nonce(r portmap.Request) portmap.Nonce {
	for _, x := range t.all {
		if x.Protocol == portmap.PCP && x.Transport == r.Transport && x.Internal.Port() == r.Internal.Port() &&
			x.Internal.Addr().Is4() == r.Internal.Addr().Is4() {
			return x.Nonce
		}
	}
	return portmap.Nonce{}
}

func (t *tickets) add(more []portmap.Ticket) error {
	for _, x := range more {
		t.drop(x)
	}
	t.all = append(t.all, more...)
	return t.save()
}

// drop takes a mapping off the list: the one of that place.
func (t *tickets) drop(x portmap.Ticket) {
	t.all = slices.DeleteFunc(t.all, func(y portmap.Ticket) bool {
		return x.Gateway == y.Gateway && x.Protocol == y.Protocol && x.Transport == y.Transport && x.Internal == y.Internal
	})
}

// save replaces the file. It holds PCP's nonces, with which others could delete
// our mappings: it is this user's alone.
func (t *tickets) save() error {
	b, err := json.MarshalIndent(t.all, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return fmt.Errorf("list of mappings: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(t.path), "mappings-*") // 0600
	if err != nil {
		return fmt.Errorf("list of mappings: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("list of mappings: %w", err)
	}
	return nil
}
