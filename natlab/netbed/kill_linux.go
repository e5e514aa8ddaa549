package netbed

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// killAll kills the processes in the namespaces and waits until they are gone.
// It looks at every process that it can see, which are ours only: Enter made a
// namespace of processes, too.
func killAll(all []*ns) {
	ours := make(map[uint64]bool)
	for _, n := range all {
		var s unix.Stat_t
		if unix.Fstat(int(n.handle), &s) == nil {
			ours[s.Ino] = true
		}
	}
	if !ownProc {
		return // /proc shows others' processes, too, under other numbers
	}
	// Again, until nothing is found: what is killed may have started others.
	for range 10 {
		if killRound(ours) == 0 {
			return
		}
	}
}

func killRound(ours map[uint64]bool) (killed int) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has ended
		}
		var s unix.Stat_t
		if unix.Stat("/proc/"+p.Name()+"/ns/net", &s) == nil && ours[s.Ino] &&
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
			killed++
			// Readable once it has ended; a second is for a machine in trouble.
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		}
		_ = unix.Close(fd)
	}
	return killed
}
