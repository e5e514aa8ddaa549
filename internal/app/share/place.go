package share

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Rule says what happens where something of that name is already.
type Rule string

// Rules.
const (
	RuleAsk    Rule = "ask"
	RuleAlways Rule = "always" // overwrite files; folders are merged
	RuleNever  Rule = "never"  // keep files; folders are merged
	RuleRename Rule = "rename" // keep, and give what comes another name
)

// Rules are all of them.
func Rules() []string {
	return []string{string(RuleAsk), string(RuleAlways), string(RuleNever), string(RuleRename)}
}

// placing decides where what is received shall be, and puts it there.
type placing struct {
	rule  Rule
	ask   func(name string, folder bool) (Rule, error)
	alias string // the name of the only root, if it shall be another
	space func(dir string) (uint64, error)

	roots   map[string]*root
	skipped []bool
	placed  []string // where everything is, in the end
	notes   []string
}

// root is what becomes of a root.
type root struct {
	as    string
	done  bool // before
	drop  bool
	merge bool // into a folder that is there
	rule  Rule // in there, or for a file
}

// rootOfPath is the first part of a path.
func rootOfPath(p string) string {
	first, _, _ := strings.Cut(p, "/")
	return first
}

// plan decides what becomes of each root, and which entries are not wanted.
func (p *placing) plan(s *staging) (skip []bool, err error) {
	p.roots, p.skipped = make(map[string]*root), make([]bool, len(s.names))
	taken := make(map[string]bool)
	for i, e := range s.manifest.entries {
		if strings.Contains(s.names[i], "/") {
			continue
		}
		r, err := p.planRoot(s, s.names[i], e, taken)
		if err != nil {
			return nil, err
		}
		taken[r.as] = true
		p.roots[s.names[i]] = r
	}
	for i, e := range s.manifest.entries {
		r := p.roots[rootOfPath(s.names[i])]
		switch {
		case r.done || r.drop:
			p.skipped[i] = true
		case r.merge || r.rule != "":
			p.skipped[i] = r.keeps(s, i, e)
		}
	}
	return slices.Clone(p.skipped), nil
}

func (p *placing) planRoot(s *staging, name string, e Entry, taken map[string]bool) (*root, error) {
	as := name
	if p.alias != "" {
		as = p.alias
	}
	for _, d := range s.done {
		if _, err := s.data.Lstat(name); d.Root == name && err != nil {
			return &root{as: d.As, done: true}, nil
		}
	}
	used := func(name string) bool {
		_, err := s.opened.Lstat(name)
		return err == nil || taken[name]
	}
	info, err := s.opened.Lstat(as)
	if err != nil && !taken[as] {
		return &root{as: as}, nil
	}
	rule := p.rule
	if rule == RuleAsk {
		if rule, err = p.ask(as, e.Kind == KindFolder); err != nil {
			return nil, err
		}
	}
	fits := info != nil && !taken[as] && (e.Kind == KindFolder) == info.IsDir() && (info.IsDir() || info.Mode().IsRegular())
	switch {
	case rule == RuleRename, rule == RuleAlways && !fits:
		return &root{as: free(as, used)}, nil
	case rule == RuleNever && (!fits || !info.IsDir()):
		return &root{as: as, drop: true}, nil
	}
	return &root{as: as, merge: info.IsDir(), rule: rule}, nil
}

// under is where an entry will be.
func (r *root) under(name string) string {
	_, rest, inside := strings.Cut(name, "/")
	if !inside {
		return r.as
	}
	return r.as + "/" + rest
}

// keeps reports whether what is there is kept: always if that is the rule, and else if it
// is the same already, by size and time, or by where it leads.
func (r *root) keeps(s *staging, i int, e Entry) bool {
	if e.Kind == KindFolder {
		return false
	}
	info, err := s.opened.Lstat(r.under(s.names[i]))
	if err != nil {
		return false
	}
	if e.Kind == KindLink && r.rule == RuleAlways {
		target, err := s.opened.Readlink(r.under(s.names[i]))
		return err == nil && target == e.Target
	}
	return r.rule == RuleNever ||
		e.Kind == KindFile && !s.stream && info.Mode().IsRegular() && info.Size() == e.Size && stampOf(info.ModTime()) == e.Time
}

// put puts everything in its place.
func (p *placing) put(s *staging) error {
	for i, e := range s.manifest.entries {
		name := s.names[i]
		r := p.roots[rootOfPath(name)]
		if strings.Contains(name, "/") || r.drop {
			continue
		}
		if r.done || p.skipped[i] && e.Kind != KindFolder {
			p.placed = append(p.placed, r.as)
			continue
		}
		if _, err := s.opened.Lstat(r.as); err == nil && !r.merge && r.rule == "" {
			// It was not there before: nobody was asked.
			r.as = free(r.as, func(name string) bool { _, err := s.opened.Lstat(name); return err == nil })
		}
		if err := s.note(placed{name, r.as}); err != nil {
			return err
		}
		var err error
		if r.merge {
			err = p.merge(s, name, r)
		} else {
			err = s.opened.Rename(s.staged(name), r.as)
		}
		if err != nil {
			return err
		}
		p.placed = append(p.placed, r.as)
	}
	return p.folderModes(s)
}

// staged is where an entry is until then.
func (s *staging) staged(name string) string { return path.Join(s.name, dataName, name) }

// merge moves what came, one by one, into a folder that is there.
func (p *placing) merge(s *staging, name string, r *root) error {
	moved := map[string]string{name: r.as} // folders, where a name had to be another
	for i, e := range s.manifest.entries {
		at := s.names[i]
		if p.skipped[i] || rootOfPath(at) != name || at == name {
			continue
		}
		to := moved[path.Dir(at)] + "/" + path.Base(at)
		info, err := s.opened.Lstat(to)
		there := err == nil
		if there && (info.IsDir() != (e.Kind == KindFolder)) {
			old := to
			to = path.Dir(to) + "/" + free(path.Base(to), func(n string) bool {
				_, err := s.opened.Lstat(path.Dir(old) + "/" + n)
				return err == nil
			})
			p.notes = append(p.notes, Printable(old)+" is something else here: what came is "+Printable(to))
			there = false
		}
		switch {
		case e.Kind == KindFolder:
			moved[at] = to
			if p.skipped[i] = there; !there { // else its mode and time are its own
				err = s.opened.Mkdir(to, 0o700)
			}
		case e.Kind == KindLink && !lstatOK(s.opened, s.staged(at)): // it could not be made
			err = nil
		default:
			err = s.opened.Rename(s.staged(at), to)
		}
		if err != nil {
			return err
		}
	}
	p.moved(moved)
	return nil
}

func lstatOK(r *os.Root, name string) bool {
	_, err := r.Lstat(name)
	return err == nil
}

// moved notes where folders of a merged root are.
func (p *placing) moved(to map[string]string) {
	for name, at := range to {
		if p.roots[name] == nil {
			p.roots[name] = &root{as: at}
		}
	}
}

// folderModes gives new folders their modes and times, the innermost first: before, they
// had to be written to.
func (p *placing) folderModes(s *staging) error {
	for i, e := range slices.Backward(s.manifest.entries) {
		name := s.names[i]
		r := p.roots[rootOfPath(name)]
		if e.Kind != KindFolder || p.skipped[i] || r.done || r.drop || r.merge && name == rootOfPath(name) {
			continue
		}
		at := r.under(name)
		if own := p.roots[name]; own != nil {
			at = own.as
		}
		if err := s.opened.Chmod(at, os.FileMode(e.Mode)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.opened.Chtimes(at, e.Time.time(), e.Time.time()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// where splits a place that was asked for into a folder, and a name in there for the only
// root.
func where(place string, roots int) (dir, alias string, err error) {
	if place == "" {
		return ".", "", nil
	}
	info, err := os.Stat(place)
	switch {
	case err == nil && info.IsDir():
		return place, "", nil
	case roots == 1 && !strings.HasSuffix(place, "/"):
		return filepath.Dir(place), filepath.Base(place), nil
	case err == nil:
		return "", "", &stopError{failOther, errors.New(place + " is a file: name a folder for several files with --output")}
	}
	return place, "", os.MkdirAll(place, 0o755)
}
