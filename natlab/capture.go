package natlab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Capture writes the packets of each link to a file of its own, in the format
// that every packet analyser reads (pcap, with nanoseconds, LINKTYPE_RAW: each
// packet begins with its IP header). Both directions are in it, as packets enter
// the link, also those that the link then loses. It is safe for concurrent use.
//
//	c, err := natlab.NewCapture("pcaps")
//	sim.Observe(c.Observe)
type Capture struct {
	dir   string
	mu    sync.Mutex
	files map[string]*pcapFile
	err   error // the first; nothing is written after it
	ended bool
}

const (
	pcapMagic   = 0xa1b23c4d // nanoseconds
	pcapRaw     = 101        // LINKTYPE_RAW
	pcapSnaplen = 1 << 16
)

type pcapFile struct {
	file *os.File
	w    *bufio.Writer
}

// NewCapture makes the folder. The file of a link is named after its box or host:
// home-a.pcap.
func NewCapture(dir string) (*Capture, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("packet capture: %w", err)
	}
	return &Capture{dir: dir, files: make(map[string]*pcapFile)}, nil
}

// Observe is the capture's [Observer].
func (c *Capture) Observe(e Event) {
	if e.What != Entered {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.ended {
		return
	}
	f := c.files[e.Where]
	if f == nil {
		if f, c.err = createPcap(filepath.Join(c.dir, e.Where+".pcap")); c.err != nil {
			return
		}
		c.files[e.Where] = f
	}
	c.err = f.write(e.Time, e.Packet.Data)
}

// Close completes the files; the first error of all counts.
func (c *Capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return c.err
	}
	c.ended = true
	for _, f := range c.files {
		c.err = errors.Join(c.err, f.w.Flush(), f.file.Close())
	}
	if c.err != nil {
		c.err = fmt.Errorf("packet capture: %w", c.err)
	}
	return c.err
}

func createPcap(path string) (*pcapFile, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	var h [24]byte
	binary.LittleEndian.PutUint32(h[0:], pcapMagic)
	binary.LittleEndian.PutUint16(h[4:], 2) // version 2.4
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], pcapSnaplen)
	binary.LittleEndian.PutUint32(h[20:], pcapRaw)
	f := &pcapFile{file, bufio.NewWriter(file)}
	_, err = f.w.Write(h[:])
	return f, err
}

func (f *pcapFile) write(when time.Time, data []byte) error {
	var h [16]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(when.Unix()))
	binary.LittleEndian.PutUint32(h[4:], uint32(when.Nanosecond()))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(data)))
	binary.LittleEndian.PutUint32(h[12:], uint32(len(data)))
	if _, err := f.w.Write(h[:]); err != nil {
		return err
	}
	_, err := f.w.Write(data)
	return err
}
