package cli

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"bodkin/internal/labrun"
)

func TestLabRunRefuses(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"nothing to run: give --on a=COMMAND":         {"--on", "server=true"},
		`--on "a": it needs the form HOST=COMMAND`:    {"--on", "a"},
		`--on "c=true": it needs the form`:            {"--on", "c=true"},
		`no preset "nonsense"`:                        {"--a", "nonsense", "--on", "a=true"},
		`preset "full-cone" is not what Linux can be`: {"--b", "full-cone", "--bed", "kernel", "--on", "a=true"},
		`--bed "sim": there are: model, kernel`:       {"--bed", "sim", "--on", "a=true"},
		"--timeout cannot be negative":                {"--timeout", "-1s", "--on", "a=true"},
		"--loss 1: it is a share":                     {"--loss", "1", "--on", "a=true"},
	} {
		var errOut bytes.Buffer
		code := run(t.Context(), append([]string{"lab", "run"}, args...), strings.NewReader(""), io.Discard, &errOut)
		if code != codeUsage || !strings.Contains(errOut.String(), want) {
			t.Errorf("%q ended with %d: %s", args, code, errOut.String())
		}
	}
}

// Commands may have commas and equals signs in them.
func TestLabRunTakesCommandsAsTheyAre(t *testing.T) {
	t.Parallel()
	a := &app{out: io.Discard, err: io.Discard}
	c := a.labRunCommand()
	var f labRunFlags
	if err := c.ParseFlags([]string{"--on=a=x=1,2 y", "--on", "server=z"}); err != nil {
		t.Fatal(err)
	}
	on, err := c.Flags().GetStringArray("on")
	if err != nil {
		t.Fatal(err)
	}
	f.on, f.a, f.b, f.bed = on, "linux", "cgnat", bedModel
	p, err := f.programs()
	if want := []labrun.Command{{Host: "a", Line: "x=1,2 y"}, {Host: "server", Line: "z"}}; err != nil || !reflect.DeepEqual(p.Commands, want) {
		t.Errorf("%+v, %v", p.Commands, err)
	}
}

func TestLabelsTellCommandsApart(t *testing.T) {
	t.Parallel()
	got := labelsOf([]labrun.Command{{Host: "a"}, {Host: "server"}, {Host: "a"}})
	if want := []string{"a#1    ", "server ", "a#2    "}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
}
