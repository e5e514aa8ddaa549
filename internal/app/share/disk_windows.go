package share

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// freeSpace is what this user may still write to a folder's volume.
func freeSpace(dir string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var avail uint64
	err = windows.GetDiskFreeSpaceEx(name, &avail, nil, nil)
	return avail, err
}

func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// lockFile keeps other processes from taking a transfer over.
func lockFile(f *os.File) (unlock func(), err error) {
	h, o := windows.Handle(f.Fd()), new(windows.Overlapped)
	o.OffsetHigh = 1 // beyond what is read and written
	if err := windows.LockFileEx(h, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, o); err != nil {
		return nil, err
	}
	return func() { _ = windows.UnlockFileEx(h, 0, 1, 0, o) }, nil
}
