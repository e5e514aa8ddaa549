package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"bodkin/natlab"
)

// output is what a command line prints; it must succeed.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errOut); code != codeOK {
		t.Fatalf("%q ended with %d: %s", args, code, errOut.String())
	}
	return out.String()
}

func TestPresetsAreListedWithTheirBeds(t *testing.T) {
	t.Parallel()
	text := strings.Join(strings.Fields(output(t, "lab", "presets")), " ")
	for _, p := range natlab.Presets() {
		if !strings.Contains(text, string(p)+" ") || !strings.Contains(text, p.Text()) {
			t.Errorf("%s or its text is missing", p)
		}
	}
	for _, line := range []string{
		"linux EIM APDF preserving no sim model kernel Linux ",
		"full-cone EIM EIF preserving no sim model ",
		"symmetric-random APDM APDF random no sim model kernel ",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %q", line)
		}
	}
}

func TestPresetsAsJSON(t *testing.T) {
	t.Parallel()
	d := json.NewDecoder(strings.NewReader(output(t, "lab", "presets", "--json")))
	found := make(map[natlab.Preset]presetInfo)
	for {
		var p presetInfo
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		found[p.Name] = p
	}
	if len(found) != len(natlab.Presets()) {
		t.Errorf("%d presets", len(found))
	}
	if c := found[natlab.CGNATBlock]; len(c.Boxes) != 2 || c.Boxes[1].Ports != "random, of a block of 512" {
		t.Errorf("%+v", c)
	}
	if s := found[natlab.DoubleNAT]; !s.Shared || s.Boxes[1].Hairpin != "outside" {
		t.Errorf("%+v", s)
	}
}
