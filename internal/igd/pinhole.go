package igd

import (
	"context"
	"net/netip"
	"time"
)

// maxPinhole is the longest lease of a pinhole (WANIPv6FirewallControl:1 §2.4.5).
const maxPinhole = 86400 * time.Second

// Firewall is whether the router filters IPv6 at all, and lets itself be asked.
func (d *Device) Firewall(ctx context.Context) (enabled, allowed bool, err error) {
	if d.firewall == nil {
		return false, false, noFirewall("GetFirewallStatus")
	}
	enabled, allowed, err = d.firewall.GetFirewallStatusCtx(ctx)
	return enabled, allowed, explain(ctx, "GetFirewallStatus", err)
}

// Open asks for a pinhole to an IPv6 endpoint for everybody. It returns the
// pinhole's number and lease: at least a second, at most a day.
func (d *Device) Open(ctx context.Context, protocol string, to netip.AddrPort, lease time.Duration) (uint16, time.Duration, error) {
	if d.firewall == nil {
		return 0, 0, noFirewall("AddPinhole")
	}
	lease = pinholeLease(lease)
	id, err := d.firewall.AddPinholeCtx(ctx, "", 0, to.Addr().WithZone("").String(), to.Port(), number(protocol), uint32(lease/time.Second))
	return id, lease, explain(ctx, "AddPinhole", err)
}

// Update renews a pinhole.
func (d *Device) Update(ctx context.Context, id uint16, lease time.Duration) (time.Duration, error) {
	if d.firewall == nil {
		return 0, noFirewall("UpdatePinhole")
	}
	lease = pinholeLease(lease)
	return lease, explain(ctx, "UpdatePinhole", d.firewall.UpdatePinholeCtx(ctx, id, uint32(lease/time.Second)))
}

// Shut takes a pinhole back. That it is gone is no error.
func (d *Device) Shut(ctx context.Context, id uint16) error {
	if d.firewall == nil {
		return nil
	}
	err := explain(ctx, "DeletePinhole", d.firewall.DeletePinholeCtx(ctx, id))
	if c := Code(err); c == NoSuchPinhole || c == InvalidArgs { // miniupnpd says the latter
		return nil
	}
	return err
}

// Working asks whether packets that came through a pinhole were answered. It is
// an Error with NoPacketSent if there were none yet.
func (d *Device) Working(ctx context.Context, id uint16) (bool, error) {
	if d.firewall == nil {
		return false, noFirewall("CheckPinholeWorking")
	}
	ok, err := d.firewall.CheckPinholeWorkingCtx(ctx, id)
	return ok, explain(ctx, "CheckPinholeWorking", err)
}

// Packets is how many packets came through a pinhole.
func (d *Device) Packets(ctx context.Context, id uint16) (uint32, error) {
	if d.firewall == nil {
		return 0, noFirewall("GetPinholePackets")
	}
	n, err := d.firewall.GetPinholePacketsCtx(ctx, id)
	return n, explain(ctx, "GetPinholePackets", err)
}

func pinholeLease(d time.Duration) time.Duration {
	return max(min(d, maxPinhole).Round(time.Second), time.Second)
}

func noFirewall(action string) error {
	return &Error{Action: action, Code: NotImplemented, Text: "the router opens no IPv6 pinholes by UPnP"}
}

// number is a protocol's in the IP header, which the service wants.
func number(protocol string) uint16 {
	if protocol == TCP {
		return 6
	}
	return 17
}
