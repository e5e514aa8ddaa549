package share

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// EntryKind is what an entry is.
type EntryKind byte

// Kinds of entries.
const (
	KindFolder EntryKind = iota + 1
	KindFile
	KindLink
)

// Entry is a file, folder or symbolic link that is sent. A folder comes before what is
// in it.
type Entry struct {
	Kind   EntryKind
	Path   string // with slashes; its first part is a root's name
	Mode   uint32 // permissions, 0777 of them
	Time   stamp  // when it was changed
	Size   int64  // of a file; -1 where it is not known
	Target string // of a link
}

// stamp is a time in full: one that is zero is none.
type stamp struct {
	sec  int64
	nsec uint32
}

func stampOf(t time.Time) stamp { return stamp{t.Unix(), uint32(t.Nanosecond())} }

func (s stamp) time() time.Time { return time.Unix(s.sec, int64(s.nsec)) }

const (
	// maxName and maxPath are what file systems take, at most.
	maxName = 255
	maxPath = 4096
	// maxDepth bounds folders in folders.
	maxDepth = 255
	// maxPaths bounds the memory that all paths of a transfer take.
	maxPaths = 128 << 20
	// maxBytes bounds what all files have: their sum is asked about, and compared with
	// the free space, and must not begin again below zero.
	maxBytes = 1 << 62
)

// unsafeError is what a manifest holds that would be written elsewhere than where it is
// received, or cannot be written at all.
type unsafeError struct {
	path, why string
}

// Error implements error.
func (e *unsafeError) Error() string {
	return fmt.Sprintf("refused %s: %s", Printable(e.path), e.why)
}

var errEntries = &stopError{failRefused, errors.New("the list of files is not what was announced")}

// manifest checks entries one after another, as they come.
type manifest struct {
	entries []Entry
	kinds   map[string]EntryKind // by path
	paths   int                  // bytes of them
	files   int
	bytes   int64
	roots   []string
}

// add takes the next entry, or says what is wrong with it.
func (m *manifest) add(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	if m.kinds == nil {
		m.kinds = make(map[string]EntryKind)
	}
	if _, twice := m.kinds[e.Path]; twice {
		return &unsafeError{e.Path, "it comes twice"}
	}
	if m.paths += len(e.Path) + len(e.Target); m.paths > maxPaths {
		return fmt.Errorf("the names of all files have more than %d MB; send it in parts", maxPaths>>20)
	}
	above := path.Dir(e.Path)
	if above == "." {
		m.roots = append(m.roots, e.Path)
	} else if m.kinds[above] != KindFolder {
		// Whatever is beneath a link would be where the link leads.
		return &unsafeError{e.Path, "it is in no folder that is sent"}
	}
	if e.Kind == KindFile {
		if e.Size > maxBytes-m.bytes {
			return fmt.Errorf("all files together have more than %d TiB; send them in parts", maxBytes>>40)
		}
		m.files++
		m.bytes += max(0, e.Size)
	}
	m.kinds[e.Path] = e.Kind
	m.entries = append(m.entries, e)
	return nil
}

// matches compares what came with what was announced.
func (m *manifest) matches(o offer) error {
	if len(m.entries) != o.entries || m.files != o.files || m.bytes != o.bytes || len(m.roots) != o.roots || m.roots[0] != o.name {
		return errEntries
	}
	return nil
}

// check refuses an entry that would leave the folder where it is received.
func (e Entry) check() error {
	if len(e.Path) > maxPath || strings.Count(e.Path, "/") > maxDepth {
		return &unsafeError{e.Path, "its path is too long"}
	}
	for part := range strings.SplitSeq(e.Path, "/") {
		if why := badName(part); why != "" {
			return &unsafeError{e.Path, why}
		}
	}
	switch e.Kind {
	case KindFolder:
	case KindFile:
	case KindLink:
		if why := leads(e.Path, e.Target); why != "" {
			return &unsafeError{e.Path, why}
		}
	default:
		return errMessage
	}
	if e.Kind != KindLink && e.Target != "" || e.Kind != KindFile && e.Size != 0 {
		return errMessage
	}
	return nil
}

// badName says what is wrong with a part of a path, if anything.
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "its path leads elsewhere"
	case len(name) > maxName:
		return "its name is too long"
	case strings.ContainsRune(name, 0):
		return "its name has a zero byte"
	}
	return ""
}

// leads says why a link may not be made: it must stay in the tree of its root.
func leads(from, target string) string {
	switch {
	case target == "" || len(target) > maxPath || strings.ContainsRune(target, 0):
		return "the link leads nowhere"
	case strings.HasPrefix(target, "/") || strings.ContainsRune(target, '\\') || len(target) > 1 && target[1] == ':':
		return "the link leads out of what is sent"
	}
	// Steps up come first: behind a name, which may be another link, they lead anywhere.
	depth, named := strings.Count(from, "/"), false
	if depth < 1 {
		return "a link can only be in a folder"
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			depth--
		default:
			named = true
		}
		if depth < 1 || named && part == ".." {
			return "the link leads out of what is sent"
		}
	}
	return ""
}

// Printable is a name as a terminal may be shown it: a peer's names may have control
// characters in them.
func Printable(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return name
	}
	var b strings.Builder
	for _, r := range name {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '�'
		}
		b.WriteRune(r)
	}
	return b.String()
}
