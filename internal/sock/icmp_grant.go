package sock

import "runtime"

// grant says how a program gets the right to open ICMP sockets.
func grant(program string) string {
	if runtime.GOOS == "linux" {
		return "grant the right to, instead of running as root: sudo setcap cap_net_raw+ep " + program
	}
	return "this system gives raw sockets to root alone"
}
