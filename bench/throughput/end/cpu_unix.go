//go:build unix

package end

import (
	"syscall"
	"time"
)

// CPUTime is what this process has computed, in and out of the kernel.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
