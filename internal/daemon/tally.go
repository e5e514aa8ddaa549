package daemon

import (
	"io"
	"sync"
	"sync/atomic"

	"bodkin/internal/app/forward"
)

// Counts are what a forward has carried, in bytes, and in connections or UDP flows.
type Counts struct {
	Open     int64  `json:"open"`
	Total    uint64 `json:"total"`
	Sent     uint64 `json:"sent"`     // to the peer
	Received uint64 `json:"received"` // from it
}

type tally struct {
	open                  atomic.Int64
	total, sent, received atomic.Uint64
}

func (t *tally) counts() Counts {
	return Counts{t.open.Load(), t.total.Load(), t.sent.Load(), t.received.Load()}
}

// counting is a node that counts what a forward carries.
type counting struct {
	forward.Node
	tally *tally
}

// Count implements [forward.Counter].
func (c counting) Count(conn forward.Conn) forward.Conn {
	c.tally.open.Add(1)
	c.tally.total.Add(1)
	return &counted{Conn: conn, tally: c.tally}
}

// counted is a connection that counts.
type counted struct {
	forward.Conn
	tally *tally
	once  sync.Once
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tally.received.Add(uint64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.tally.sent.Add(uint64(n))
	return n, err
}

// Packets are counted, too.
func (c *counted) Packets() io.ReadWriteCloser { return &countedPackets{c.Conn.Packets(), c.tally} }

// CloseRead lets go of what the peer still writes, where the connection can.
func (c *counted) CloseRead() error {
	if r, ok := c.Conn.(interface{ CloseRead() error }); ok {
		return r.CloseRead()
	}
	return nil
}

func (c *counted) Close() error {
	c.over()
	return c.Conn.Close()
}

func (c *counted) Abort() error {
	c.over()
	return c.Conn.Abort()
}

func (c *counted) over() { c.once.Do(func() { c.tally.open.Add(-1) }) }

type countedPackets struct {
	io.ReadWriteCloser
	tally *tally
}

func (c *countedPackets) Read(b []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(b)
	c.tally.received.Add(uint64(n))
	return n, err
}

func (c *countedPackets) Write(b []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(b)
	c.tally.sent.Add(uint64(n))
	return n, err
}
