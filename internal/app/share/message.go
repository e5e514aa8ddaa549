package share

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// version is that of the messages. A side that speaks another one says so and ends.
const version = 1

// kind is what a message on a control stream is, its first byte. The length of its body
// follows as a varint (encoding/binary), and the body.
type kind byte

const (
	kindHello   kind = iota + 1 // version, role and transfer: the first message of who dials
	kindJoin                    // this stream carries data of a transfer
	kindOffer                   // what there is, in sum
	kindEntries                 // some of the entries
	kindSkip                    // entries that need not be sent
	kindHave                    // pieces that are there
	kindAccept                  // begin
	kindGot                     // bytes that have arrived, and a sign of life
	kindAlive                   // a sign of life
	kindLost                    // an entry that will not come
	kindSent                    // everything has been written
	kindDone                    // everything has arrived
	kindFail                    // why it ends
)

// maxBody bounds a message, and so what a peer makes us hold for one.
const maxBody = 1 << 16

var errMessage = &stopError{failOther, errors.New("the other side says what cannot be understood; is it of another version?")}

// role is what the side that dials does.
type role byte

const (
	roleSend role = iota + 1
	roleReceive
)

// transferID names one transfer among the streams of a peer.
type transferID [16]byte

type hello struct {
	version byte
	role    role
	id      transferID
}

func (h hello) append(b []byte) []byte { return append(append(b, h.version, byte(h.role)), h.id[:]...) }

func parseHello(b []byte) (h hello, err error) {
	c := cursor{b: b}
	h.version, h.role = c.byte(), role(c.byte())
	copy(h.id[:], c.bytes(len(h.id)))
	if h.version != version && !c.failed {
		return h, nil // the rest may be anything
	}
	if h.role != roleSend && h.role != roleReceive {
		c.failed = true
	}
	return h, c.end()
}

func parseJoin(b []byte) (id transferID, err error) {
	c := cursor{b: b}
	copy(id[:], c.bytes(len(id)))
	return id, c.end()
}

// form is what is sent.
type form byte

const (
	formFiles  form = iota + 1 // files and folders
	formStream                 // a stream whose length is not known
	formText                   // a text, to be shown
)

// offer sums up what there is.
type offer struct {
	form    form
	label   [16]byte // the same when the same sender sends the same paths again
	roots   int      // how many paths were named
	name    string   // of the first
	entries int
	files   int
	bytes   int64
}

const (
	// maxEntries bounds a transfer, and maxText a text, which is one piece.
	maxEntries = 1 << 20
	maxText    = minPiece
)

func (o offer) append(b []byte) []byte {
	b = append(append(b, byte(o.form)), o.label[:]...)
	b = appendString(binary.AppendUvarint(b, uint64(o.roots)), o.name)
	b = binary.AppendUvarint(b, uint64(o.entries))
	b = binary.AppendUvarint(b, uint64(o.files))
	return binary.AppendUvarint(b, uint64(o.bytes))
}

func parseOffer(b []byte) (o offer, err error) {
	c := cursor{b: b}
	o.form = form(c.byte())
	copy(o.label[:], c.bytes(len(o.label)))
	o.roots = int(c.number(maxEntries))
	o.name = c.string(maxName)
	o.entries = int(c.number(maxEntries))
	o.files = int(c.number(uint64(o.entries)))
	o.bytes = int64(c.number(maxBytes))
	switch {
	case o.roots < 1 || o.entries < o.roots:
		c.failed = true
	case o.form == formText:
		c.failed = c.failed || o.entries != 1 || o.files != 1 || o.bytes > maxText
	case o.form == formStream:
		c.failed = c.failed || o.entries != 1 || o.files != 1 || o.bytes != 0
	case o.form != formFiles:
		c.failed = true
	}
	return o, c.end()
}

// appendEntry and cutEntry are an entry among others in a message.
func appendEntry(b []byte, e Entry) []byte {
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.Time.sec)
	b = binary.AppendUvarint(b, uint64(e.Time.nsec))
	b = binary.AppendUvarint(b, uint64(e.Size))
	return appendString(appendString(b, e.Path), e.Target)
}

func (c *cursor) entry() (e Entry) {
	e.Kind = EntryKind(c.byte())
	e.Mode = uint32(c.number(0o777))
	e.Time.sec = c.signed()
	e.Time.nsec = uint32(c.number(999_999_999))
	e.Size = int64(c.number(maxSize))
	e.Path = c.string(maxPath)
	e.Target = c.string(maxPath)
	return e
}

func parseEntries(b []byte) (out []Entry, err error) {
	c := cursor{b: b}
	for !c.failed && len(c.b) > 0 {
		out = append(out, c.entry())
	}
	return out, c.end()
}

// span are entries in a row.
type span struct{ first, count int }

func (s span) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(s.first)), uint64(s.count))
}

func parseSkip(b []byte) (out []span, err error) {
	c := cursor{b: b}
	for !c.failed && len(c.b) > 0 {
		out = append(out, span{int(c.number(maxEntries)), int(c.number(maxEntries))})
	}
	return out, c.end()
}

// have are pieces of a file that are there, in a row: what they should hash to.
type have struct {
	index, first int
	hashes       []hash
}

// haveAtOnce is how many hashes a message holds.
const haveAtOnce = 1 << 10

func (h have) append(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(h.index)), uint64(h.first))
	for _, x := range h.hashes {
		b = append(b, x[:]...)
	}
	return b
}

func parseHave(b []byte) (h have, err error) {
	c := cursor{b: b}
	h.index, h.first = int(c.number(maxEntries)), int(c.number(maxSize/minPiece))
	if len(c.b)%len(hash{}) != 0 || len(c.b)/len(hash{}) > haveAtOnce {
		c.failed = true
	}
	for !c.failed && len(c.b) > 0 {
		h.hashes = append(h.hashes, c.hash())
	}
	return h, c.end()
}

// accept says how many streams shall carry data; with one, pieces come in order.
func parseAccept(b []byte) (streams int, err error) {
	c := cursor{b: b}
	streams = int(c.number(maxStreams))
	if streams < 1 {
		c.failed = true
	}
	return streams, c.end()
}

func parseGot(b []byte) (bytes int64, err error) {
	c := cursor{b: b}
	bytes = int64(c.number(maxBytes))
	return bytes, c.end()
}

// lost is an entry that will not come, and why.
type lost struct {
	index  int
	reason string
}

func (l lost) append(b []byte) []byte {
	return appendString(binary.AppendUvarint(b, uint64(l.index)), l.reason)
}

func parseLost(b []byte) (l lost, err error) {
	c := cursor{b: b}
	l.index, l.reason = int(c.number(maxEntries)), c.string(maxReason)
	return l, c.end()
}

// maxReason bounds what is said to people.
const maxReason = 1 << 10

func appendFail(code failure, reason string) []byte {
	return appendString([]byte{byte(code)}, reason[:min(len(reason), maxReason)])
}

func parseFail(b []byte) (code failure, reason string, err error) {
	c := cursor{b: b}
	code, reason = failure(c.byte()), c.string(maxReason)
	return code, reason, c.end()
}

// Frames on a data stream: their first byte.
const (
	framePiece byte = iota + 1 // a header, and the piece
	frameEnd                   // all pieces of a file have been written, or were there
)

// frame is the header of a frame. In a piece n and length say which and how long, and
// hash is the piece's; in an end n is how many were written, length is the file's, and hash
// its own.
type frame struct {
	kind   byte
	index  int
	n      int
	length int64
	hash   hash
}

func (f frame) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, f.kind), uint64(f.index))
	b = binary.AppendUvarint(b, uint64(f.n))
	b = binary.AppendUvarint(b, uint64(f.length))
	return append(b, f.hash[:]...)
}

// readFrame reads a header; io.EOF is the end of the stream.
func readFrame(r *bufio.Reader) (f frame, err error) {
	if f.kind, err = r.ReadByte(); err != nil {
		return f, err
	}
	most := uint64(maxPiece)
	switch f.kind {
	case framePiece:
	case frameEnd:
		most = maxSize
	default:
		return f, errMessage
	}
	var numbers [3]uint64
	for i, limit := range []uint64{maxEntries, maxSize / minPiece, most} {
		if numbers[i], err = binary.ReadUvarint(r); err == nil && numbers[i] > limit {
			err = errMessage
		}
		if err != nil {
			return f, cut(err)
		}
	}
	f.index, f.n, f.length = int(numbers[0]), int(numbers[1]), int64(numbers[2])
	_, err = io.ReadFull(r, f.hash[:])
	return f, cut(err)
}

// cut is an end where none may be.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendMessage frames a body.
func appendMessage(b []byte, k kind, body []byte) []byte {
	return append(binary.AppendUvarint(append(b, byte(k)), uint64(len(body))), body...)
}

// readMessage reads a message of a control stream.
func readMessage(r *bufio.Reader) (kind, []byte, error) {
	k, err := r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, nil, cut(err)
	}
	if kind(k) < kindHello || kind(k) > kindFail || n > maxBody {
		return 0, nil, errMessage
	}
	body := make([]byte, n)
	_, err = io.ReadFull(r, body)
	return kind(k), body, cut(err)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cursor reads a body. What is wrong is told at the end.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.failed = true
		return 0
	}
	x := c.b[0]
	c.b = c.b[1:]
	return x
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.b) {
		c.failed = true
		return nil
	}
	x := c.b[:n]
	c.b = c.b[n:]
	return x
}

func (c *cursor) hash() (h hash) {
	copy(h[:], c.bytes(len(h)))
	return h
}

func (c *cursor) number(most uint64) uint64 {
	x, n := binary.Uvarint(c.b)
	if n <= 0 || x > most {
		c.failed = true
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *cursor) signed() int64 {
	x, n := binary.Varint(c.b)
	if n <= 0 {
		c.failed = true
		return 0
	}
	c.b = c.b[n:]
	return x
}

func (c *cursor) string(most uint64) string { return string(c.bytes(int(c.number(most)))) }

func (c *cursor) end() error {
	if c.failed || len(c.b) > 0 {
		return errMessage
	}
	return nil
}

// failure is why a transfer ends before its end.
type failure byte

const (
	failOther failure = iota + 1
	failDeclined
	failSpace
	failVersion
	failStopped
	failRoute
	failBusy
	failRefused // what is offered
)

// Failure is what the other side ended a transfer with.
type Failure struct {
	code   failure
	Reason string
}

// Error implements error.
func (f *Failure) Error() string {
	switch f.code {
	case failDeclined:
		return "the other side does not want it"
	case failStopped:
		return "the other side was stopped"
	default:
		return "the other side says: " + Printable(f.Reason)
	}
}

// Declined reports whether a person said no.
func (f *Failure) Declined() bool { return f.code == failDeclined }

// Stopped reports whether a person ended it: the same can go on later.
func (f *Failure) Stopped() bool { return f.code == failStopped }
