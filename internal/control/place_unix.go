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
