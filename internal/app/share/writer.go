package share

import (
	"errors"
	"io"
)

// writer is a target that passes one file on as it comes: a text, a stream, or a file that
// shall be written to standard output. Each piece has been verified by then.
type writer struct {
	w io.Writer
}

var errSeveral = &stopError{failOther, errors.New("it is more than one file: receive it in a folder, and not with --output -")}

func (w *writer) begin(m *manifest, _ offer) (skip []bool, has map[int][]hash, err error) {
	if len(m.entries) != 1 || m.entries[0].Kind != KindFile {
		return nil, nil, errSeveral
	}
	return make([]bool, 1), nil, nil
}

func (w *writer) write(_ int, _ int64, b []byte) error {
	if _, err := w.w.Write(b); err != nil {
		return diskError(err)
	}
	return nil
}

func (w *writer) finish(int, int64) error { return nil }

func (w *writer) leave(int) {}

func (w *writer) end(bool) error { return nil }

func (w *writer) inOrder() bool { return true }
