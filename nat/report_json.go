package nat

import (
	"encoding/json"
	"net/netip"
	"time"
)

// ReportVersion is that of the JSON of a Report. Fields may be added without
// another one; those that are there keep their names and meanings.
const ReportVersion = 1

// The JSON of a Report: its own types, so that ours can change. Findings that were
// not made are left out; times are RFC 3339, spans in seconds.
type (
	reportJSON struct {
		Version    int           `json:"version"`
		Began      time.Time     `json:"began"`
		Time       time.Time     `json:"time"`
		Complete   bool          `json:"complete"`
		Server     serverJSON    `json:"server"`
		UDPBlocked *findingJSON  `json:"udp_blocked,omitempty"`
		Mapping    *findingJSON  `json:"mapping,omitempty"`
		Filtering  *findingJSON  `json:"filtering,omitempty"`
		KeepsEarly *findingJSON  `json:"keeps_early,omitempty"`
		Hairpin    *findingJSON  `json:"hairpin,omitempty"`
		Ports      *portsJSON    `json:"ports,omitempty"`
		Pooled     *findingJSON  `json:"pooled,omitempty"`
		Levels     *findingJSON  `json:"levels,omitempty"` // at the least
		Lifetime   *lifetimeJSON `json:"lifetime,omitempty"`
		Fresh      *lifetimeJSON `json:"lifetime_fresh,omitempty"`
		Public     []netip.Addr  `json:"public"`
		IPv6       *ipv6JSON     `json:"ipv6,omitempty"`
		Samples    []sampleJSON  `json:"samples"`
	}
	serverJSON struct {
		IPv4         netip.AddrPort `json:"ipv4,omitzero"`
		IPv6         netip.AddrPort `json:"ipv6,omitzero"`
		OtherPort    netip.AddrPort `json:"other_port,omitzero"`
		OtherAddress netip.AddrPort `json:"other_address,omitzero"`
	}
	findingJSON struct {
		Value    any       `json:"value"`
		Time     time.Time `json:"time"`
		Evidence []string  `json:"evidence"`
	}
	portsJSON struct {
		Allocation string    `json:"allocation"`
		Low        uint16    `json:"low,omitempty"`
		High       uint16    `json:"high,omitempty"`
		Delta      int16     `json:"delta,omitempty"`
		Noise      float64   `json:"noise_per_second,omitempty"`
		Last       uint16    `json:"last,omitempty"`
		Time       time.Time `json:"time"`
		Evidence   []string  `json:"evidence"`
	}
	lifetimeJSON struct {
		AtLeast  float64   `json:"at_least_s"`
		Below    float64   `json:"below_s,omitempty"`
		Time     time.Time `json:"time"`
		Evidence []string  `json:"evidence"`
	}
	ipv6JSON struct {
		Works      *findingJSON `json:"works"`
		Address    netip.Addr   `json:"address,omitzero"`
		Translated *findingJSON `json:"translated,omitempty"`
		Filtering  *findingJSON `json:"filtering,omitempty"`
	}
	sampleJSON struct {
		Time   time.Time      `json:"time"`
		Local  uint16         `json:"local_port"`
		To     netip.AddrPort `json:"to"`
		Mapped netip.AddrPort `json:"mapped"`
	}
)

// MarshalJSON implements [json.Marshaler]: an object with a version.
func (r Report) MarshalJSON() ([]byte, error) {
	out := reportJSON{
		Version: ReportVersion, Began: r.Began, Time: r.Time, Complete: r.Complete, Server: serverJSON(r.Server),
		UDPBlocked: worded(r.Blocked), Mapping: worded(r.Mapping), Filtering: worded(r.Filtering),
		KeepsEarly: worded(r.KeepsEarly), Hairpin: worded(r.Hairpin), Pooled: worded(r.Pooled),
		Lifetime: spanned(r.Lifetime), Fresh: spanned(r.Fresh), Public: append([]netip.Addr{}, r.Public...),
		Samples: []sampleJSON{},
	}
	if f := r.Levels; f.Known() {
		out.Levels = &findingJSON{f.Value, f.Time, f.Evidence}
	}
	if f := r.Ports; f.Known() {
		p := f.Value
		out.Ports = &portsJSON{
			Allocation: p.Allocation.String(), Low: p.Low, High: p.High, Delta: p.Delta,
			Noise: float64(p.Noise) / 100, Last: p.Last, Time: f.Time, Evidence: f.Evidence,
		}
	}
	if v := r.IPv6; v.Works.Known() {
		out.IPv6 = &ipv6JSON{worded(v.Works), v.Address, worded(v.Translated), worded(v.Filtering)}
	}
	for _, s := range r.Samples {
		out.Samples = append(out.Samples, sampleJSON(s))
	}
	return json.Marshal(out)
}

// worded is a finding whose value is a word; nil if it was not made.
func worded[T interface{ String() string }](f Finding[T]) *findingJSON {
	if !f.Known() {
		return nil
	}
	return &findingJSON{f.Value.String(), f.Time, f.Evidence}
}

func spanned(f Finding[Span]) *lifetimeJSON {
	if !f.Known() {
		return nil
	}
	return &lifetimeJSON{f.Value.AtLeast.Seconds(), f.Value.Below.Seconds(), f.Time, f.Evidence}
}
