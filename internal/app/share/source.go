package share

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"bodkin/peer"

	"lukechampine.com/blake3"
)

// Source is what is sent. It is read while it is sent, and not before.
type Source struct {
	// LeftOut are those of what was named that are not sent, and why.
	LeftOut []string

	offer   offer
	entries []Entry
	local   []string // where an entry is; empty where it has no file
	text    []byte
	stream  io.Reader
}

// Bytes and Files are the size of it all, as far as it is known.
func (s *Source) Bytes() int64 { return s.offer.bytes }

// Files is how many files there are.
func (s *Source) Files() int { return s.offer.files }

// Name is that of the first thing, and Roots how many there are.
func (s *Source) Name() string { return s.offer.name }

// Roots is how many files and folders were named.
func (s *Source) Roots() int { return s.offer.roots }

// Text makes a source of a text, which is shown at the other side.
func Text(text string) (*Source, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("a text of %d bytes is too long; send it as a file", len(text))
	}
	s := &Source{text: []byte(text)}
	s.offer.form = formText
	s.entries = []Entry{{Kind: KindFile, Path: "text", Size: int64(len(text))}}
	return s, s.sum()
}

// Stream makes a source of what r has, to its end. It cannot be sent twice.
func Stream(r io.Reader, name string) (*Source, error) {
	s := &Source{stream: r}
	s.offer.form = formStream
	if why := badName(name); why != "" || strings.ContainsRune(name, '/') {
		return nil, fmt.Errorf("%q is no name for a file", name)
	}
	s.entries = []Entry{{Kind: KindFile, Path: name, Mode: 0o644}}
	return s, s.sum()
}

// Paths makes a source of files and folders. Links that were named are followed; links
// in folders are sent as links if they stay in there. The key, which may be anything that
// stays, lets the other side see that the same is sent again.
func Paths(key peer.Key, paths ...string) (*Source, error) {
	s := &Source{}
	s.offer.form = formFiles
	label := blake3.New(16, nil)
	seed := key.Derive("share label")
	_, _ = label.Write(seed[:])
	for _, p := range paths {
		full, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(label, "%d %s\n", len(full), full)
		if err := s.addRoot(full); err != nil {
			return nil, err
		}
	}
	if err := s.sum(); err != nil {
		return nil, err
	}
	label.Sum(s.offer.label[:0])
	return s, nil
}

// sum fills in the offer.
func (s *Source) sum() error {
	_, _ = rand.Read(s.offer.label[:])
	var m manifest
	for _, e := range s.entries {
		if err := m.add(e); err != nil {
			return err
		}
		if len(m.entries) > maxEntries {
			return fmt.Errorf("more than %d files and folders; send them in parts, or packed into one", maxEntries)
		}
	}
	s.offer.entries, s.offer.files, s.offer.bytes = len(m.entries), m.files, m.bytes
	s.offer.roots, s.offer.name = len(m.roots), m.roots[0]
	return nil
}

func (s *Source) addRoot(full string) error {
	name := filepath.Base(full)
	if full == filepath.Dir(full) || badName(name) != "" {
		return fmt.Errorf("%s has no name; send what is in it", full)
	}
	if slices.ContainsFunc(s.entries, func(e Entry) bool { return e.Path == name }) {
		return fmt.Errorf("two things are named %s; send them one after the other, or their folders", Printable(name))
	}
	info, err := os.Stat(full)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder; send what comes out of it with `bodkin send - < %s`", full, full)
		}
		return s.addFile(full, name, info)
	}
	if full, err = filepath.EvalSymlinks(full); err != nil {
		return err
	}
	return filepath.WalkDir(full, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(full, at)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if err != nil {
			return err
		}
		return s.addFound(at, path.Join(name, filepath.ToSlash(inside)), info)
	})
}

// addFound adds what is in a folder, or says that it does not.
func (s *Source) addFound(at, name string, info fs.FileInfo) error {
	e := Entry{Path: name, Mode: uint32(info.Mode().Perm()), Time: stampOf(info.ModTime())}
	switch {
	case info.IsDir():
		e.Kind = KindFolder
	case info.Mode().IsRegular():
		return s.addFile(at, name, info)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(at)
		if err != nil {
			return err
		}
		e.Kind, e.Target = KindLink, filepath.ToSlash(target)
		if why := leads(name, e.Target); why != "" {
			s.LeftOut = append(s.LeftOut, fmt.Sprintf("%s: %s", Printable(name), why))
			return nil
		}
	default:
		s.LeftOut = append(s.LeftOut, Printable(name)+": it is neither a file nor a folder")
		return nil
	}
	s.add(e, "")
	return nil
}

func (s *Source) addFile(at, name string, info fs.FileInfo) error {
	if info.Size() > maxSize {
		return fmt.Errorf("%s has more than 16 TiB", at)
	}
	s.add(Entry{
		Kind: KindFile, Path: name, Mode: uint32(info.Mode().Perm()), Time: stampOf(info.ModTime()), Size: info.Size(),
	}, at)
	return nil
}

func (s *Source) add(e Entry, at string) {
	s.entries, s.local = append(s.entries, e), append(s.local, at)
}

var (
	errChanged = errors.New("it changed while it was sent")
	errGone    = errors.New("it is gone")
)

// open opens the file of an entry, if it still is what it was.
func (s *Source) open(i int) (*os.File, error) {
	f, err := os.Open(s.local[i])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, reason(err)
	}
	if err := s.unchanged(i, f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// unchanged compares an open file with its entry.
func (s *Source) unchanged(i int, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return reason(err)
	}
	if e := s.entries[i]; !info.Mode().IsRegular() || info.Size() != e.Size || stampOf(info.ModTime()) != e.Time {
		return errChanged
	}
	return nil
}

// reason is an error without the path, which the other side knows by another name.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
