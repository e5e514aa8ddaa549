package cli

import (
	"strings"
	"testing"

	"bodkin/nat"
)

func TestCheckSaysWhatICMPIsGoodFor(t *testing.T) {
	t.Parallel()
	for ways, want := range map[string]string{"all": "pings, and errors", "echo": "no more: because", "none": "cannot be used to punch: because"} {
		c := checkup{NAT: nat.Report{}, ICMP: icmpUse{ways, "because"}}
		if got := c.text(false); !strings.Contains(got, want) {
			t.Errorf("%s: %s", ways, got)
		}
	}
	if u := useOfICMP(t.Context()); u.Ways == "" || (u.Reason == "") != (u.Ways == "all") {
		t.Errorf("%+v", u)
	}
}
