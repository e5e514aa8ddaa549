package natlab

import (
	"errors"
	"fmt"
	"time"

	"bodkin/nat"
)

// Check finds what no box can be.
func (n NAT) Check() error {
	for _, check := range []func() error{n.checkBehaviors, n.checkPorts, n.checkValues, n.checkConntrack} {
		if err := check(); err != nil {
			return fmt.Errorf("NAT: %w", err)
		}
	}
	return nil
}

func (n NAT) checkBehaviors() error {
	for _, b := range []nat.Behavior{n.Mapping, n.Filtering, n.TCP.Mapping, n.TCP.Filtering} {
		if b > nat.AddressAndPortDependent {
			return fmt.Errorf("behaviour %d is none of RFC 4787", b)
		}
	}
	_, tcpFiltering := n.tcp()
	switch {
	case n.Translates() && (n.Filtering <= nat.None || tcpFiltering <= nat.None):
		return errors.New("it translates, and so lets nobody in without a mapping; set Filtering to endpoint-independent at least")
	case n.TCP.Mapping != nat.Unknown && (n.TCP.Mapping > nat.None) != n.Translates():
		return errors.New("it translates either UDP and TCP or none; leave TCP.Mapping unknown")
	case !n.tracks() && n.TCP.Filtering > nat.None, n.tracks() && n.TCP.Filtering == nat.None:
		return errors.New("it filters either UDP and TCP or none; set Filtering too, or leave TCP.Filtering unknown")
	}
	return nil
}

func (n NAT) checkPorts() error {
	p := n.Ports
	first := p.firstBlock()
	switch {
	case p.Allocation > Random:
		return fmt.Errorf("port allocation %d is none", p.Allocation)
	case p.Delta != 0 && p.Allocation != Sequential:
		return errors.New("a port delta needs sequential allocation")
	case p.Delta < -1000 || p.Delta > 1000:
		return fmt.Errorf("port delta %d is not between -1000 and 1000", p.Delta)
	case p.Overloading && (p.Allocation != Preserving || p.BlockSize != 0):
		return errors.New("port overloading needs preserving allocation, without blocks")
	case p.BlockSize < 0 || p.BlockSize > 65536-first:
		return fmt.Errorf("a block of %d ports from %d on does not fit", p.BlockSize, first)
	case p.BlockStart != 0 && p.BlockSize == 0:
		return errors.New("a block start needs a block size")
	case p != (Ports{}) && !n.Translates():
		return errors.New("it allocates no ports without a Mapping")
	case n.Busy != 0 && (!n.Translates() || n.Conntrack || p.BlockSize != 0):
		return errors.New("other hosts take ports only from a NAT without conntrack and port blocks; set Busy to 0")
	}
	return nil
}

func (n NAT) checkValues() error {
	for _, d := range []time.Duration{n.UDP.Unreplied, n.UDP.Replied, n.TCP.Established, n.TCP.Transitory, n.ICMP.Timeout} {
		if d < 0 {
			return fmt.Errorf("timeout %v must not be negative", d)
		}
	}
	switch {
	case n.Pooling > Arbitrary || n.Hairpinning > ExternalSource || n.UDP.Refresh > RefreshInbound || n.Fragments > FragmentsDropped:
		return errors.New("a field has a value that is none of its type's")
	case n.TCP.OnReset > CloseIgnored || n.TCP.OnFIN > CloseIgnored || n.ICMP.Errors > ErrorsNone || n.TCP.Refusal > RefuseLate:
		return errors.New("a field has a value that is none of its type's")
	case n.UDP.Refusal > RefuseWithError || n.ICMP.Refusal > RefuseWithError:
		return errors.New("UDP and ICMP are refused silently or with an ICMP error")
	case n.Limits.Host < 0 || n.Limits.Box < 0:
		return errors.New("a limit must not be negative; 0 is none for a host, 65536 for the box")
	case !(n.Busy >= 0): // nor is it no number
		return fmt.Errorf("%v mappings of others a second; 0 is none", n.Busy)
	case n.Busy*or(n.UDP.Unreplied, defaultUDP).Seconds() > maxOthers:
		return fmt.Errorf("%v mappings of others a second are more than %d at a time; lower Busy or UDP.Unreplied", n.Busy, maxOthers)
	case n.Block.TCPBut != 0 && !n.Block.TCP:
		return errors.New("a TCP port that stays open needs TCP to be blocked")
	}
	return nil
}

// maxOthers is how many ports other hosts may have on average: the rest is for
// those that are under test.
const maxOthers = 32000

// checkConntrack finds what Linux's connection tracking cannot be.
func (n NAT) checkConntrack() error {
	if !n.Conntrack {
		if n.KeepsEarly {
			return errors.New("only connection tracking keeps early packets; set Conntrack")
		}
		return nil
	}
	switch {
	case n.Mapping == nat.AddressDependent || n.Filtering != nat.AddressAndPortDependent:
		return errors.New("conntrack maps per endpoint or fully at random, and filters by address and port")
	case n.TCP.Mapping != nat.Unknown || n.TCP.Filtering != nat.Unknown || n.TCP.NoSimultaneousOpen || n.TCP.OnReset != 0 || n.TCP.OnFIN != 0:
		return errors.New("conntrack has its own TCP states; leave mapping, filtering, simultaneous open and what closes alone")
	case n.TCP.Refusal == RefuseLate:
		return errors.New("conntrack holds no SYN")
	case n.Ports != (Ports{}) || n.Pooling != 0 || n.Hairpinning != 0:
		return errors.New("conntrack chooses ports by itself and does not hairpin; leave Ports, Pooling and Hairpinning alone")
	case n.UDP.Refresh != 0 || n.ICMP.TypeAgnostic || n.ICMP.Errors != 0:
		return errors.New("conntrack refreshes both ways, knows ICMP types and lets all errors about its own in; leave Refresh, TypeAgnostic and Errors alone")
	case n.Fragments == FragmentsInOrder:
		return errors.New("conntrack reassembles; set Fragments to FragmentsReassembled or FragmentsDropped")
	}
	return nil
}

// tcp is how TCP is mapped and filtered.
func (n NAT) tcp() (mapping, filtering nat.Behavior) {
	mapping, filtering = n.TCP.Mapping, n.TCP.Filtering
	if mapping == nat.Unknown {
		mapping = n.Mapping
	}
	if filtering == nat.Unknown {
		filtering = n.Filtering
	}
	return mapping, filtering
}

// tracks reports whether the box keeps any state.
func (n NAT) tracks() bool { return n.Mapping > nat.None || n.Filtering > nat.None }

func (p Ports) firstBlock() int {
	if p.BlockStart == 0 {
		return 1024
	}
	return int(p.BlockStart)
}

// or is d, or the default if d is 0.
func or(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
