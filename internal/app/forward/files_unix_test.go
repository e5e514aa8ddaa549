//go:build !windows

package forward_test

import (
	"syscall"
	"testing"
)

// openFiles is how many files this process may have open.
func openFiles(t *testing.T) uint64 {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return uint64(l.Cur) //nolint:unconvert // it is signed on some systems
}
