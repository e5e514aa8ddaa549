//go:build !windows

package config

import (
	"os"
	"syscall"
)

// keepOwner gives a new file the owner and group of an old one. root changes the
// file of a service so; all others have the same ones anyway, or may not.
func keepOwner(path string, was os.FileInfo) error {
	s, ok := was.Sys().(*syscall.Stat_t)
	now, err := os.Stat(path)
	if err != nil || !ok {
		return err
	}
	if n, ok := now.Sys().(*syscall.Stat_t); ok && n.Uid == s.Uid && n.Gid == s.Gid {
		return nil
	}
	return os.Chown(path, int(s.Uid), int(s.Gid))
}
