package share

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
)

// Until it is whole, what is received is in a folder beside the place where it will be:
// photos.part for photos. In it are
//
//	journal     what this is, in JSON; and what has been put in its place
//	half/…      files of which a part has come, by a hash of their paths
//	data/…      files that are whole, and folders
//
// Of a file in half the pieces that are there are hashed again, and told to the sender: so
// nothing has to be noted while data comes, and nothing is believed after a crash. A file
// in data is taken for the same if its size and time are the entry's, and else is half of it.
const (
	partSuffix  = ".part"
	journalName = "journal"
	dataName    = "data"
	halfName    = "half"
	// maxParts is how many transfers of one name may be unfinished.
	maxParts = 100
)

// journal is the first line of that file. Lines of placed follow.
type journal struct {
	Version int    `json:"version"`
	Label   string `json:"label"`
	Name    string `json:"name"`
	Help    string `json:"help"`
}

// placed is a root that is about to be put in its place, As.
type placed struct {
	Root string `json:"root"`
	As   string `json:"as"`
}

const journalHelp = "an unfinished transfer: receive the same again to go on, or delete this folder to give up"

// staging is a target that keeps what comes in a folder, and puts it in its place in the
// end.
type staging struct {
	*placing
	opened   *os.Root // where it will be
	name     string   // of the folder, in there
	data     *os.Root
	log      *os.File
	unlock   func()
	done     []placed
	manifest *manifest
	names    []string // of the entries, as they are here
	stream   bool

	mu   sync.Mutex
	open map[int]*os.File
}

// openStaging finds the folder of an unfinished transfer of the same, or makes one.
func openStaging(in *os.Root, o offer) (*staging, error) {
	label := hex.EncodeToString(o.label[:])
	base := o.name
	for len(base)+len(partSuffix)+4 > maxName {
		base = base[:len(base)-1]
	}
	for n := range maxParts {
		name := base + partSuffix
		if n > 0 {
			name = fmt.Sprintf("%s.%d%s", base, n+1, partSuffix)
		}
		s := &staging{opened: in, name: name, open: make(map[int]*os.File)}
		switch err := s.take(label, o.name); {
		case err == nil:
			return s, nil
		case !errors.Is(err, errOther):
			return nil, err
		}
	}
	return nil, fmt.Errorf("%d unfinished transfers of %s are in %s; delete their %s folders", maxParts, Printable(o.name), in.Name(), partSuffix)
}

// errOther is a folder that is not this transfer's.
var errOther = errors.New("another's")

// take makes the folder, or takes it over if it is this transfer's and nobody has it.
func (s *staging) take(label, name string) error {
	err := s.opened.Mkdir(s.name, 0o700)
	fresh := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return reasonAt(s.opened, err)
	}
	flags := os.O_RDWR | os.O_APPEND
	if fresh {
		flags |= os.O_CREATE | os.O_EXCL
	}
	s.log, err = s.opened.OpenFile(path.Join(s.name, journalName), flags, 0o600)
	if err != nil {
		if fresh {
			return reasonAt(s.opened, err)
		}
		return errOther
	}
	if s.unlock, err = lockFile(s.log); err != nil {
		_ = s.log.Close()
		return errOther // another process receives it
	}
	if fresh {
		err = s.note(journal{version, label, name, journalHelp})
	} else {
		var j journal
		if j, s.done, err = readJournal(s.log); err != nil || j.Label != label || j.Version != version {
			err = errOther
		}
	}
	if err == nil {
		err = s.openData()
	}
	if err != nil {
		s.close()
	}
	return err
}

func (s *staging) openData() error {
	for _, name := range []string{halfName, dataName} {
		if err := s.opened.Mkdir(path.Join(s.name, name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	data, err := s.opened.OpenRoot(path.Join(s.name, dataName))
	s.data = data
	return err
}

func (s *staging) note(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.log.Write(append(line, '\n'))
	return err
}

// maxJournal bounds what is read of a journal.
const maxJournal = 16 << 20

func readJournal(f *os.File) (j journal, done []placed, err error) {
	d := json.NewDecoder(io.LimitReader(f, maxJournal))
	if err := d.Decode(&j); err != nil {
		return j, nil, err
	}
	for {
		var p placed
		if d.Decode(&p) != nil {
			return j, done, nil // the last line may have been cut by a crash
		}
		done = append(done, p)
	}
}

// close lets go of the folder; it stays.
func (s *staging) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.open {
		_ = f.Close()
		delete(s.open, i)
	}
	if s.data != nil {
		_ = s.data.Close()
	}
	if s.unlock != nil {
		s.unlock()
	}
	_ = s.log.Close()
}

// remove deletes the folder.
func (s *staging) remove() error {
	s.close()
	return s.opened.RemoveAll(s.name)
}

// prune deletes what an earlier try brought that is not sent any more.
func (s *staging) prune() error {
	wanted := make(map[string]bool, len(s.names))
	for _, name := range s.names {
		wanted[name] = true
	}
	var old []string
	err := fs.WalkDir(s.data.FS(), ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == "." || wanted[at] {
			return err
		}
		if old = append(old, s.staged(at)); d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range s.names {
		wanted[s.half(i)] = true
	}
	halves, err := fs.ReadDir(s.opened.FS(), path.Join(s.name, halfName))
	if err != nil {
		return err
	}
	for _, f := range halves {
		if at := path.Join(s.name, halfName, f.Name()); !wanted[at] {
			old = append(old, at)
		}
	}
	for _, at := range old {
		if err := s.opened.RemoveAll(at); err != nil {
			return err
		}
	}
	return nil
}

// folders makes the folders of a manifest, where they are wanted.
func (s *staging) folders(skip []bool) error {
	for i, e := range s.manifest.entries {
		if e.Kind != KindFolder || skip[i] {
			continue
		}
		at := s.names[i]
		err := s.data.Mkdir(at, 0o700)
		if errors.Is(err, fs.ErrExist) {
			info, bad := s.data.Lstat(at)
			if bad == nil && info.IsDir() {
				err = nil
			} else if err = s.data.RemoveAll(at); err == nil {
				err = s.data.Mkdir(at, 0o700)
			}
		}
		if err != nil {
			return reasonAt(s.data, err)
		}
	}
	return nil
}

// half is where a file is until it is whole.
func (s *staging) half(i int) string {
	h := whole([]byte(s.names[i]))
	return path.Join(s.name, halfName, hex.EncodeToString(h[:16]))
}

// found looks at what there is of a file: all, or some pieces, in a row from the first.
func (s *staging) found(i int, buf []byte) (all bool, has []hash, bytes int64, err error) {
	e := s.manifest.entries[i]
	if info, err := s.data.Lstat(s.names[i]); err == nil {
		switch {
		case !info.Mode().IsRegular():
			err = s.data.RemoveAll(s.names[i])
		case info.Size() == e.Size && stampOf(info.ModTime()) == e.Time:
			return true, nil, e.Size, nil
		default:
			err = s.opened.Rename(s.staged(s.names[i]), s.half(i)) // it has changed since
		}
		if err != nil {
			return false, nil, 0, err
		}
	}
	f, err := s.opened.Open(s.half(i))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil, 0, nil
	}
	if err != nil {
		return false, nil, 0, s.opened.Remove(s.half(i)) // its mode forbids it
	}
	defer func() { _ = f.Close() }()
	for n := range pieces(e.Size) {
		b := buf[:pieceLen(e.Size, n)]
		if _, err := io.ReadFull(f, b); err != nil {
			break
		}
		has = append(has, pieceHash(b, e.Size, n))
		bytes += int64(len(b))
	}
	return false, has, bytes, s.opened.Chmod(s.half(i), 0o600)
}

func (s *staging) inOrder() bool { return false }

// begin looks what there is, and makes room.
func (s *staging) begin(m *manifest, o offer) (skip []bool, has map[int][]hash, err error) {
	s.manifest, s.names, s.stream = m, localNames(m.entries, system), o.form == formStream
	if skip, err = s.plan(s); err != nil {
		return nil, nil, err
	}
	if err := s.prune(); err != nil {
		return nil, nil, reasonAt(s.data, err)
	}
	if err := s.folders(skip); err != nil {
		return nil, nil, err
	}
	has = make(map[int][]hash)
	buf := make([]byte, maxPiece)
	var need int64
	for i, e := range m.entries {
		if e.Kind != KindFile || skip[i] {
			continue
		}
		if s.stream {
			err = s.opened.RemoveAll(s.half(i))
		} else {
			var there int64
			skip[i], has[i], there, err = s.found(i, buf)
			need += e.Size - there
		}
		if err != nil {
			return nil, nil, reasonAt(s.data, err)
		}
	}
	return skip, has, s.room(need)
}

// room refuses what there is no space for.
func (s *staging) room(need int64) error {
	space, err := s.space(s.opened.Name())
	if err != nil || need <= 0 || uint64(need) <= space {
		return nil //nolint:nilerr // where it is not known, writing will tell
	}
	return &stopError{failSpace, fmt.Errorf("no space: %s more are needed where it is received, and %s are free", size(need), size(int64(min(space, 1<<62))))}
}

// end puts everything in its place. If something was lost it all stays where it is, to be
// completed.
func (s *staging) end(lost bool) error {
	if lost {
		return nil
	}
	if err := s.links(); err != nil {
		return diskError(err)
	}
	if err := s.put(s); err != nil {
		return diskError(err)
	}
	return s.remove()
}

// links makes the links, when there is nothing more that could be written through them.
func (s *staging) links() error {
	for i, e := range s.manifest.entries {
		if e.Kind != KindLink || s.skipped[i] {
			continue
		}
		if err := s.data.RemoveAll(s.names[i]); err != nil {
			return err
		}
		if err := s.data.Symlink(e.Target, s.names[i]); err != nil {
			s.notes = append(s.notes, fmt.Sprintf("%s: the link could not be made: %v", Printable(e.Path), reason(err)))
		}
	}
	return nil
}

// file opens a file to write to. Those of several pieces stay open.
func (s *staging) file(i int) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.open[i]; f != nil {
		return f, nil
	}
	f, err := s.opened.OpenFile(s.half(i), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, reasonAt(s.opened, err)
	}
	if len(s.open) >= maxOpen {
		_ = f.Close()
		return nil, errMessage
	}
	s.open[i] = f
	return f, nil
}

// maxOpen is how many files may be half there: those that the streams are at, and the
// next ones.
const maxOpen = 4 * maxStreams

func (s *staging) write(i int, offset int64, b []byte) error {
	f, err := s.file(i)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, offset)
	if err != nil && !errors.Is(err, fs.ErrClosed) { // else the file was given up meanwhile
		return diskError(err)
	}
	return nil
}

// finish makes a file what it was.
func (s *staging) finish(i int, size int64) error {
	f, err := s.file(i)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.open, i)
	s.mu.Unlock()
	e := s.manifest.entries[i]
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Chmod(os.FileMode(e.Mode))
	}
	if bad := f.Close(); err == nil {
		err = bad
	}
	if err == nil && e.Time != (stamp{}) {
		err = s.opened.Chtimes(s.half(i), e.Time.time(), e.Time.time())
	}
	if err == nil {
		err = s.opened.Rename(s.half(i), s.staged(s.names[i]))
	}
	if err != nil {
		return diskError(err)
	}
	return nil
}

// leave keeps what came of a file: its pieces count when it is sent again.
func (s *staging) leave(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.open[i]; f != nil {
		_ = f.Close()
		delete(s.open, i)
	}
}

// diskError is an error of our disk, for both sides.
func diskError(err error) error {
	var ours *stopError
	switch {
	case errors.As(err, &ours):
		return err
	case isFull(err):
		return &stopError{failSpace, fmt.Errorf("no space left where it is received (%w); what came is kept", err)}
	}
	return &stopError{failOther, err}
}

// reasonAt names the folder in an error of a Root, whose paths begin in there.
func reasonAt(r *os.Root, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return diskError(fmt.Errorf("%s %s: %w", p.Op, Printable(path.Join(r.Name(), p.Path)), p.Err))
	}
	return diskError(err)
}

// free is the first name like name that nobody has: photos (2), notes (2).txt.
func free(name string, taken func(string) bool) string {
	stem, ext := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 && len(name)-dot <= 8 {
		stem, ext = name[:dot], name[dot:]
	}
	for n := 2; ; n++ {
		suffix := fmt.Sprintf(" (%d)%s", n, ext)
		base := stem
		for len(base)+len(suffix) > maxName {
			base = base[:len(base)-1]
		}
		if c := base + suffix; !taken(c) {
			return c
		}
	}
}
