package netbed

import (
	"fmt"

	"bodkin/natlab"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rules makes a namespace the box that a preset names.
func rules(n *ns, preset natlab.Preset) error {
	if preset == "" {
		preset = natlab.Linux
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(n.handle)))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	filter := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "filter"})
	forward := chain(c, filter, "forward", nftables.ChainHookForward, nftables.ChainPolicyDrop)
	accept(c, filter, forward, establishedOrRelated())
	accept(c, filter, forward, from("lan"))
	switch preset {
	case natlab.Linux, natlab.Random, natlab.Firewall:
		input := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
		acceptKnown(c, filter, input)
	case natlab.LinuxAccept:
		// The kernel accepts by itself; a chain makes it track what comes.
		input := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyAccept)
		accept(c, filter, input, establishedOrRelated())
	case natlab.OpenWrt:
		input := chain(c, filter, "input", nftables.ChainHookInput, nftables.ChainPolicyDrop)
		acceptKnown(c, filter, input)
		reject(c, filter, input)
	default:
		return fmt.Errorf("no preset %q; there are %v", preset, natlab.Presets())
	}
	if preset != natlab.Firewall {
		masquerade(c, preset == natlab.Random)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
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

// acceptKnown lets in what belongs to something known, and everybody inside.
func acceptKnown(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain) {
	accept(c, t, ch, establishedOrRelated())
	accept(c, t, ch, from("lan"))
	accept(c, t, ch, from("lo"))
}

// establishedOrRelated is `ct state established,related`.
func establishedOrRelated() []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
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

// reject answers as OpenWrt does: TCP with a reset, the rest with an ICMP error.
func reject(c *nftables.Conn, t *nftables.Table, ch *nftables.Chain) {
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}})
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH},
	}})
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
