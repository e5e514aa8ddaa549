//go:build !windows

package control

import (
	"os"
	"syscall"
)

// ours reports whether a file belongs to this user: /tmp is everybody's.
func ours(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Getuid()
}

// lock keeps other processes of ours out of a folder until unlock: between a
// look at the socket and its removal it could become another node's.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
