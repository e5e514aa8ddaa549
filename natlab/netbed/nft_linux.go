package netbed

import (
	"fmt"
	"strconv"
	"time"

	"bodkin/nat"
	"bodkin/natlab"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rules makes a namespace the box that a NAT describes.
func rules(n *ns, box natlab.NAT) error {
	if err := box.Kernel(); err != nil {
		return err
	}
	if err := timeouts(n, box); err != nil {
		return err
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(n.handle)))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	filter := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	if !box.Conntrack {
		block(c, filter, chain(c, filter, "forward", nftables.ChainHookForward, nftables.ChainPolicyAccept), box.Block)
	} else {
		forward := chain(c, filter, "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop)
		block(c, filter, forward, box.Block)
		accept(c, filter, forward, ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
		if !box.Leaks {
			drop(c, filter, forward, ctState(expr.CtStateBitINVALID))
		}
		accept(c, filter, forward, from("lan"))
		input(c, filter, box)
	}
	if box.Translates() {
		masquerade(c, box.Mapping == nat.AddressAndPortDependent)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// input says who may talk to the box itself.
func input(c *nftables.Conn, filter *nftables.Table, box natlab.NAT) {
	if box.KeepsEarly {
		// The kernel accepts by itself; a chain makes it track what comes.
		ch := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyAccept)
		block(c, filter, ch, box.Block)
		accept(c, filter, ch, ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
		return
	}
	ch := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
	block(c, filter, ch, box.Block)
	accept(c, filter, ch, ctState(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED))
	accept(c, filter, ch, from("lan"))
	accept(c, filter, ch, from("lo"))
	if box.ICMP.Pings {
		accept(c, filter, ch, echoRequest())
		accept(c, filter, ch, echoRequest6())
	}
	for _, r := range []struct {
		protocol byte
		refusal  natlab.Refusal
	}{
		{unix.IPPROTO_UDP, box.UDP.Refusal},
		{unix.IPPROTO_TCP, box.TCP.Refusal},
		{unix.IPPROTO_ICMP, box.ICMP.Refusal},
		{unix.IPPROTO_ICMPV6, box.ICMP.Refusal},
	} {
		with := expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}
		switch r.refusal {
		case natlab.RefuseWithReset:
			with = expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
		case natlab.RefuseWithError:
		default:
			continue
		}
		c.AddRule(&nftables.Rule{Table: filter, Chain: ch, Exprs: append(protocol(r.protocol), &with)})
	}
}

// timeouts sets what differs from the kernel's own.
func timeouts(n *ns, box natlab.NAT) error {
	for _, s := range []struct {
		name  string
		value time.Duration
	}{
		{"udp_timeout", box.UDP.Unreplied},
		{"udp_timeout_stream", box.UDP.Replied},
		{"tcp_timeout_established", box.TCP.Established},
		{"icmp_timeout", box.ICMP.Timeout},
		{"icmpv6_timeout", box.ICMP.Timeout},
	} {
		if s.value == 0 {
			continue
		}
		if err := n.sysctl("netfilter/nf_conntrack_"+s.name, strconv.Itoa(int(s.value/time.Second))); err != nil {
			return err
		}
	}
	if box.Conntrack && !box.TCP.Loose {
		return n.sysctl("netfilter/nf_conntrack_tcp_loose", "0")
	}
	return nil
}

// block drops what the box lets pass in neither direction.
func block(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain, b natlab.Block) {
	if b.UDP {
		drop(c, t, ch, protocol(unix.IPPROTO_UDP))
	}
	if b.ICMP {
		drop(c, t, ch, protocol(unix.IPPROTO_ICMP))
		drop(c, t, ch, protocol(unix.IPPROTO_ICMPV6))
	}
	if b.TCP {
		if b.TCPBut == 0 {
			drop(c, t, ch, protocol(unix.IPPROTO_TCP))
			return
		}
		// The port is the destination of what comes from inside, and the source of
		// what comes from outside.
		drop(c, t, ch, append(from("lan"), tcpPortNot(2, b.TCPBut)...))
		drop(c, t, ch, append(from("wan"), tcpPortNot(0, b.TCPBut)...))
	}
}

func chain(c *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook, policy nftables.ChainPolicy) *nftables.Chain {
	return c.AddChain(&nftables.Chain{
		Name: name, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	})
}

func accept(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain, match []expr.Any) {
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: append(match, &expr.Verdict{Kind: expr.VerdictAccept})})
}

func drop(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain, match []expr.Any) {
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: append(match, &expr.Verdict{Kind: expr.VerdictDrop})})
}

// ctState is `ct state` with any of the bits.
func ctState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0, 0, 0}},
	}
}

// from is `iifname NAME`, to `oifname NAME`.
func from(name string) []expr.Any { return iface(expr.MetaKeyIIFNAME, name) }

func iface(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// protocol is `meta l4proto`.
func protocol(p byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}},
	}
}

// tcpPortNot is TCP whose port at an offset of its header is another.
func tcpPortNot(offset uint32, port uint16) []expr.Any {
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)})
}

// echoRequest is `icmp type echo-request`, echoRequest6 the same of ICMPv6.
func echoRequest() []expr.Any { return icmpType(unix.IPPROTO_ICMP, 8) }

func echoRequest6() []expr.Any { return icmpType(unix.IPPROTO_ICMPV6, 128) }

func icmpType(p, kind byte) []expr.Any {
	return append(protocol(p),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}})
}

// masquerade translates IPv4 on the way out.
func masquerade(c *nftables.Conn, random bool) {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "nat"})
	ch := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: append(iface(expr.MetaKeyOIFNAME, "wan"),
		&expr.Masq{FullyRandom: random})})
}
