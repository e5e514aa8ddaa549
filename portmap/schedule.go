package portmap

import "time"

// schedule says how long to wait for an answer to the n-th sending of a request,
// from 0, after waiting for last before: not ok if it is not to be sent. Random is
// between 0 and 1.
type schedule func(n int, last time.Duration, random float64) (wait time.Duration, ok bool)

// PCP's retransmission times (RFC 6887 §8.1.1). It never gives up.
const (
	pcpIRT = 3 * time.Second
	pcpMRT = 1024 * time.Second
)

func pcpSchedule(n int, last time.Duration, random float64) (time.Duration, bool) {
	wait := pcpIRT
	if n > 0 {
		wait = min(2*last, pcpMRT)
	}
	return time.Duration(float64(wait) * (0.9 + 0.2*random)), true
}

// NAT-PMP's (RFC 6886 §3.1): nine times, from 250 ms to 64 s.
const (
	pmpFirst = 250 * time.Millisecond
	pmpTimes = 9
)

func pmpSchedule(n int, _ time.Duration, _ float64) (time.Duration, bool) {
	return pmpFirst << min(n, pmpTimes), n < pmpTimes
}

// minRenewal is the least time between two renewals (RFC 6887 §11.2.1).
const minRenewal = 4 * time.Second

// renewal is how long after a grant, or after its last renewal was tried, the n-th
// renewal is due, of what is left of its lifetime: between 1/2 and 5/8 of the
// whole, then between 3/4 and 3/4 + 1/16, and so on by halves (RFC 6887 §11.2.1).
// NAT-PMP asks for the same without the spread (RFC 6886 §3.3).
func renewal(left time.Duration, random float64) time.Duration {
	return max(minRenewal, left/2+time.Duration(random*float64(left/8)))
}

const (
	// permanentRenewal is how often a mapping that lasts for ever is asked for
	// again: the router may have rebooted without saying so.
	permanentRenewal = 20 * time.Minute
	// retryFirst and retryMost bound how long a router that refused is left alone.
	retryFirst = 30 * time.Second
	retryMost  = 30 * time.Minute
	// deniedFirst is that for a policy, which nobody changes every minute.
	deniedFirst = 5 * time.Minute
)

// retry is when to ask again after the n-th refusal in a row, from 0; told is what
// the router said about it, 0 if nothing.
func retry(n int, denied bool, told time.Duration) time.Duration {
	wait := retryFirst
	if denied {
		wait = deniedFirst
	}
	return min(max(wait<<min(n, 10), told), retryMost)
}
