package conform_test

import (
	"reflect"
	"testing"
	"time"

	"bodkin/internal/conform"
	"bodkin/nat"
	"bodkin/natlab"
)

// sabotage is a box, and what is done to a field of it behind the back of those
// who expect the box.
type sabotage struct {
	box   natlab.NAT
	field func(*natlab.NAT)
}

var (
	home  = natlab.PortRestricted.NAT()
	linux = natlab.Linux.NAT()
)

// like is a box with something else about it.
func like(n natlab.NAT, change func(*natlab.NAT)) natlab.NAT {
	change(&n)
	return n
}

func sequential(n *natlab.NAT) { n.Ports.Allocation = natlab.Sequential }

// sabotages has one for every field.
var sabotages = map[string]sabotage{
	"Mapping":   {home, func(n *natlab.NAT) { n.Mapping = nat.AddressDependent }},
	"Filtering": {home, func(n *natlab.NAT) { n.Filtering = nat.AddressDependent }},
	"Conntrack": {linux, func(n *natlab.NAT) { n.Conntrack = false }},

	"Ports.Allocation":  {home, func(n *natlab.NAT) { n.Ports.Allocation = natlab.Random }},
	"Ports.Delta":       {like(home, sequential), func(n *natlab.NAT) { n.Ports.Delta = -3 }},
	"Ports.Parity":      {like(home, sequential), func(n *natlab.NAT) { n.Ports.Parity = true }},
	"Ports.Overloading": {home, func(n *natlab.NAT) { n.Ports.Overloading = true }},
	"Ports.BlockSize":   {natlab.CGNATBlock.NAT(), func(n *natlab.NAT) { n.Ports.BlockSize = 256 }},
	"Ports.BlockStart":  {natlab.CGNATBlock.NAT(), func(n *natlab.NAT) { n.Ports.BlockStart = 4096 }},

	"Pooling":     {home, func(n *natlab.NAT) { n.Pooling = natlab.Arbitrary }},
	"Hairpinning": {natlab.SameNATHairpin.NAT(), func(n *natlab.NAT) { n.Hairpinning = natlab.InternalSource }},

	"UDP.Unreplied": {home, func(n *natlab.NAT) { n.UDP.Unreplied = 4 * time.Minute }},
	"UDP.Replied":   {linux, func(n *natlab.NAT) { n.UDP.Replied = 121 * time.Second }},
	"UDP.Refresh":   {home, func(n *natlab.NAT) { n.UDP.Refresh = natlab.RefreshInbound }},
	"UDP.Refusal":   {home, func(n *natlab.NAT) { n.UDP.Refusal = natlab.RefuseWithError }},

	"TCP.Mapping":            {home, func(n *natlab.NAT) { n.TCP.Mapping = nat.AddressAndPortDependent }},
	"TCP.Filtering":          {home, func(n *natlab.NAT) { n.TCP.Filtering = nat.EndpointIndependent }},
	"TCP.Refusal":            {home, func(n *natlab.NAT) { n.TCP.Refusal = natlab.RefuseLate }},
	"TCP.NoSimultaneousOpen": {home, func(n *natlab.NAT) { n.TCP.NoSimultaneousOpen = true }},
	"TCP.Loose":              {linux, func(n *natlab.NAT) { n.TCP.Loose = false }},
	"TCP.OnReset":            {home, func(n *natlab.NAT) { n.TCP.OnReset = natlab.CloseAtOnce }},
	"TCP.OnFIN":              {home, func(n *natlab.NAT) { n.TCP.OnFIN = natlab.CloseIgnored }},
	"TCP.Established":        {home, func(n *natlab.NAT) { n.TCP.Established = time.Hour }},
	"TCP.Transitory":         {linux, func(n *natlab.NAT) { n.TCP.Transitory = 5 * time.Second }},

	"ICMP.TypeAgnostic": {home, func(n *natlab.NAT) { n.ICMP.TypeAgnostic = true }},
	"ICMP.Timeout":      {home, func(n *natlab.NAT) { n.ICMP.Timeout = 20 * time.Second }},
	"ICMP.Errors":       {home, func(n *natlab.NAT) { n.ICMP.Errors = natlab.ErrorsFromPeer }},
	"ICMP.Pings":        {linux, func(n *natlab.NAT) { n.ICMP.Pings = true }},
	"ICMP.Refusal":      {home, func(n *natlab.NAT) { n.ICMP.Refusal = natlab.RefuseWithError }},

	"Limits.Host": {home, func(n *natlab.NAT) { n.Limits.Host = 300 }},
	"Limits.Box":  {home, func(n *natlab.NAT) { n.Limits.Box = 1500 }},

	"Fragments": {home, func(n *natlab.NAT) { n.Fragments = natlab.FragmentsDropped }},

	"Block.UDP":    {home, func(n *natlab.NAT) { n.Block.UDP = true }},
	"Block.TCP":    {home, func(n *natlab.NAT) { n.Block.TCP = true }},
	"Block.ICMP":   {home, func(n *natlab.NAT) { n.Block.ICMP = true }},
	"Block.TCPBut": {natlab.TCPOnly443.NAT(), func(n *natlab.NAT) { n.Block.TCPBut = 80 }},

	"KeepsEarly": {natlab.LinuxAccept.NAT(), func(n *natlab.NAT) { n.KeepsEarly = false }},
	"Leaks":      {linux, func(n *natlab.NAT) { n.Leaks = false }},
	"Busy":       {natlab.SymmetricBusy.NAT(), func(n *natlab.NAT) { n.Busy = 10 }},
}

func TestSabotageOfAnyFieldIsSeen(t *testing.T) {
	t.Parallel()
	fields := make(map[string]bool)
	leaves("", reflect.TypeFor[natlab.NAT](), fields)
	for name := range sabotages {
		if !fields[name] {
			t.Errorf("natlab.NAT has no field %s any more: remove its sabotage", name)
		}
	}
	for name := range fields {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, ok := sabotages[name]
			if !ok {
				t.Fatalf("nobody sabotages %s: add a box where it can be measured, and to the suite what measures it", name)
			}
			changed := like(x.box, x.field)
			if err := changed.Check(); err != nil {
				t.Fatal(err)
			}
			if differ := differing("", reflect.ValueOf(x.box), reflect.ValueOf(changed)); len(differ) != 1 || differ[0] != name {
				t.Fatalf("the sabotage of %s changes %v", name, differ)
			}
			got, err := conform.Measure(t.Context(), conform.Sim{}, []natlab.NAT{changed})
			if err != nil {
				t.Fatal(err)
			}
			if got == conform.Expect([]natlab.NAT{x.box}) {
				t.Error("the suite sees nothing")
			}
			// The suite is right about the new box, too.
			for _, d := range got.Differences(conform.Expect([]natlab.NAT{changed})) {
				t.Error(d)
			}
		})
	}
}

func TestBoxesToBeSabotagedAreMeasuredRight(t *testing.T) {
	t.Parallel()
	all := make(map[natlab.NAT]bool)
	for _, x := range sabotages {
		all[x.box] = true
	}
	for n := range all {
		verify(t, conform.Sim{}, []natlab.NAT{n})
	}
}

// leaves collects the names of all fields that are no structs.
func leaves(prefix string, t reflect.Type, names map[string]bool) {
	for f := range t.Fields() {
		if f.Type.Kind() == reflect.Struct {
			leaves(prefix+f.Name+".", f.Type, names)
			continue
		}
		names[prefix+f.Name] = true
	}
}

// differing are the names of the fields in which two differ.
func differing(prefix string, a, b reflect.Value) (names []string) {
	for i := range a.NumField() {
		switch name := prefix + a.Type().Field(i).Name; {
		case a.Field(i).Kind() == reflect.Struct:
			names = append(names, differing(name+".", a.Field(i), b.Field(i))...)
		case !a.Field(i).Equal(b.Field(i)):
			names = append(names, name)
		}
	}
	return names
}
