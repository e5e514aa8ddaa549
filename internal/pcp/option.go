package pcp

import (
	"encoding/binary"
	"net/netip"
)

// Options are those of a message (RFC 6887 §7.3, §13).
type Options struct {
	// ThirdParty is for whom a mapping is, if that is not the sender.
	ThirdParty netip.Addr
	// PreferFailure wants the suggested external endpoint or none.
	PreferFailure bool
	// Filters are the remote peers that may use a mapping, all with none.
	Filters []Filter
	// Unknown are the codes of options that this package does not know. Those
	// below 128 must be understood or refused.
	Unknown []uint8
}

// Filter is a part of the world, by prefix and port, 0 for all ports.
type Filter struct {
	Prefix netip.Prefix
	Port   uint16
}

const (
	optThirdParty    = 1
	optPreferFailure = 2
	optFilter        = 3

	thirdPartySize = 16
	filterSize     = 20
)

// MaxFilters is how many filters this package reads or writes in a message.
const MaxFilters = 16

func appendOption(b []byte, code byte, size int) []byte {
	return binary.BigEndian.AppendUint16(append(b, code, 0), uint16(size))
}

func (o Options) append(b []byte) []byte {
	if o.ThirdParty.IsValid() {
		b = appendAddr(appendOption(b, optThirdParty, thirdPartySize), o.ThirdParty)
	}
	if o.PreferFailure {
		b = appendOption(b, optPreferFailure, 0)
	}
	for _, f := range o.Filters[:min(len(o.Filters), MaxFilters)] {
		bits := f.Prefix.Bits()
		if f.Prefix.Addr().Is4() {
			bits += 96 // of the IPv4-mapped address, RFC 6887 §13.3
		}
		b = append(appendOption(b, optFilter, filterSize), 0, byte(bits))
		b = appendAddr(binary.BigEndian.AppendUint16(b, f.Port), f.Prefix.Addr())
	}
	return b
}

func parseOptions(b []byte) (o Options, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return Options{}, malformed("option of %d bytes", len(b))
		}
		code, size := b[0], int(binary.BigEndian.Uint16(b[2:]))
		padded := (size + 3) &^ 3
		if b = b[4:]; len(b) < padded {
			return Options{}, malformed("option %d is cut off", code)
		}
		if err := o.set(code, b[:size]); err != nil {
			return Options{}, err
		}
		b = b[padded:]
	}
	return o, nil
}

func (o *Options) set(code byte, b []byte) error {
	want, known := map[byte]int{optThirdParty: thirdPartySize, optPreferFailure: 0, optFilter: filterSize}[code]
	switch {
	case !known:
		o.Unknown = append(o.Unknown, code)
		return nil
	case len(b) != want:
		return malformed("option %d of %d bytes", code, len(b))
	}
	switch code {
	case optThirdParty:
		if o.ThirdParty.IsValid() {
			return malformed("two options THIRD_PARTY")
		}
		o.ThirdParty = addr(b)
	case optPreferFailure:
		o.PreferFailure = true
	case optFilter:
		a, bits := addr(b[4:]), int(b[1])
		if a.Is4() {
			bits -= 96
		}
		if len(o.Filters) == MaxFilters || bits < 0 || bits > a.BitLen() {
			return malformed("option FILTER")
		}
		o.Filters = append(o.Filters, Filter{netip.PrefixFrom(a, bits), binary.BigEndian.Uint16(b[2:])})
	}
	return nil
}
