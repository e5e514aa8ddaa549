package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bodkin/natlab"
)

func TestMatrixCountsPairs(t *testing.T) {
	t.Parallel()
	text := output(t, "lab", "matrix", "--presets", "linux,udp-blocked,linux", "--runs", "2")
	words := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"linux linux 100 % 160.0 ms 160.0 ms",
		"linux udp-blocked 0 % - -",
		"1 linux 100 0 2 udp-blocked 0 0",
		"of 4 pairs, 1 in every run and 3 in none.",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestMatrixIsTheSameForTheSameSeed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	matrix := func(name, seed string) (string, string) {
		page := filepath.Join(dir, name)
		text := output(t, "lab", "matrix", "--json", "--presets", "openwrt,cgnat", "--runs", "3", "--loss", "0.1", "--seed", seed, "--html", page)
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return text, strings.ReplaceAll(string(b), page, "PAGE")
	}
	one, onePage := matrix("one", "5")
	again, againPage := matrix("again", "5")
	other, _ := matrix("other", "6")
	if one != again || onePage != againPage {
		t.Error("one seed, two results")
	}
	if one == other {
		t.Error("two seeds, one result")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("%d files in the folder, %v", len(left), err)
	}
}

func TestMatrixAsJSON(t *testing.T) {
	t.Parallel()
	d := json.NewDecoder(strings.NewReader(output(t, "lab", "matrix", "--json", "--presets", "linux,full-cone", "--runs", "1")))
	var kinds []string
	for {
		var l struct {
			pairLine
			Always int `json:"always"`
		}
		if err := d.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, l.Kind)
		if l.Kind == "pair" && (l.Direct != 1 || l.Median < l.Limit || l.Packets == 0 || l.Relayed == 0) || l.Kind == "matrix" && l.Always != 4 {
			t.Errorf("%+v", l)
		}
	}
	if got := strings.Join(kinds, " "); got != "pair pair pair pair matrix" {
		t.Error(got)
	}
}

func TestPopulationIsWeighed(t *testing.T) {
	t.Parallel()
	var presets []string
	for _, p := range natlab.Presets() {
		presets = append(presets, string(p))
	}
	text := output(t, "lab", "matrix", "--population", "--runs", "1", "--timeout", "1s", "--presets", strings.Join(presets, ","))
	if !strings.Contains(text, "Two people on the Internet connect directly in ") || !strings.Contains(text, "% (20 to 50)") {
		t.Error(text)
	}
}

func TestMatrixRefuses(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`no preset "nonsense"`:                        {"--presets", "linux,nonsense"},
		`preset "full-cone" is not what Linux can be`: {"--presets", "full-cone", "--bed", "kernel"},
		`--bed "cloud": there are: sim, model`:        {"--bed", "cloud"},
		"--loss 2: it is a share":                     {"--loss", "2"},
		"--runs -1":                                   {"--runs", "-1"},
		"--timeout 0s":                                {"--timeout", "0s"},
		"a delay cannot be negative":                  {"--delay-a", "-1s"},
		"--population also needs the presets":         {"--population", "--presets", "linux"},
	} {
		var errOut bytes.Buffer
		code := run(t.Context(), append([]string{"lab", "matrix"}, args...), strings.NewReader(""), io.Discard, &errOut)
		if code != codeUsage || !strings.Contains(errOut.String(), want) {
			t.Errorf("%q ended with %d: %s", args, code, errOut.String())
		}
	}
	var errOut bytes.Buffer
	if code := run(t.Context(), []string{"lab", "matrix", "--html", "/nonexistent/x.html"}, nil, io.Discard, &errOut); code != codeFailed {
		t.Errorf("a page that cannot be written: %d: %s", code, errOut.String())
	}
}

func TestCommandLineCanBeRunAgain(t *testing.T) {
	t.Parallel()
	a := &app{out: io.Discard, err: io.Discard}
	c := a.labMatrixCommand()
	if err := c.ParseFlags([]string{"--presets=linux,openwrt", "--population", "--html", "it's.html", "--loss", "0.1"}); err != nil {
		t.Fatal(err)
	}
	if got := commandLine(c); got != `matrix --html 'it'\''s.html' --loss 0.1 --population --presets linux,openwrt` {
		t.Error(got)
	}
}

func TestPresetListsAreCompleted(t *testing.T) {
	t.Parallel()
	text := output(t, "__complete", "lab", "matrix", "--presets", "linux,")
	if !strings.Contains(text, "\nlinux,openwrt\t") {
		t.Error(text)
	}
}
