package cli

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bodkin/rendezvous"

	"github.com/spf13/pflag"
)

const dist = "../../dist"

// installed is where units expect the program.
const installed = "/usr/local/bin/bodkin"

func units(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dist, "*.service"))
	if err != nil || len(found) != 3 {
		t.Fatalf("units: %v, %v", found, err)
	}
	return found
}

// knows reports whether there is such a command line.
func knows(t *testing.T, args []string) *pflag.FlagSet {
	t.Helper()
	c, rest, err := (&app{}).root().Find(args)
	if err != nil || !c.Runnable() {
		t.Fatalf("%v: no such command: %v", args, err)
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	if c.Args != nil {
		if err := c.Args(c, c.Flags().Args()); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	return c.Flags()
}

// What units run and set is there.
func TestUnitsRunCommandsThatThereAre(t *testing.T) {
	t.Parallel()
	for _, name := range units(t) {
		text := read(t, name)
		_, line, ok := strings.Cut(text, "\nExecStart="+installed+" ")
		if !ok {
			t.Fatalf("%s does not run %s", name, installed)
		}
		line, _, _ = strings.Cut(line, "\n")
		flags := knows(t, strings.Fields(line))
		for _, v := range regexp.MustCompile(`BODKIN_\w+`).FindAllString(text, -1) {
			found := false
			flags.VisitAll(func(f *pflag.Flag) { found = found || envName(f.Name) == v })
			if !found {
				t.Errorf("%s sets %s, which is no variable of its command", name, v)
			}
		}
		for _, page := range regexp.MustCompile(`man:(bodkin-\w+)\(1\)`).FindAllStringSubmatch(text, -1) {
			knows(t, []string{strings.TrimPrefix(page[1], "bodkin-")})
		}
	}
}

func TestUnitsAreWhatSystemdTakes(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not there: the package systemd has it")
	}
	dir := t.TempDir()
	program, err := os.Executable() // any that is there
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range units(t) {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(read(t, name), installed, program)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if strings.Contains(name, "-user") {
			continue // which cannot have all of it
		}
		out, err = exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--no-pager", "--threshold=20", path).CombinedOutput()
		if err != nil {
			t.Errorf("%s is more exposed than 2.0 of 10: %v\n%s", name, err, out)
		}
	}
}

// The image is built with the module's Go, of files that are there, and runs what
// there is.
func TestContainerfileFitsTheSource(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`\\\n`).ReplaceAllString(read(t, filepath.Join(dist, "Containerfile")), " ")
	_, version, _ := strings.Cut(read(t, "../../go.mod"), "\ngo ")
	version, _, _ = strings.Cut(version, "\n")
	stages := map[string]bool{"scratch": true}
	got := make(map[string][]string)
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		keyword, args := words[0], words[1:]
		got[keyword] = args
		switch keyword {
		case "FROM":
			if image, tag, ok := strings.Cut(args[0], ":"); ok && (path.Base(image) != "golang" || tag != version) {
				t.Errorf("it is built from %s, and go.mod has go %s", args[0], version)
			} else if !ok && !stages[args[0]] {
				t.Errorf("FROM %s: no such stage, and no version", args[0])
			}
			if len(args) == 3 && args[1] == "AS" {
				stages[args[2]] = true
			}
		case "COPY":
			copied(t, args, stages)
		case "RUN":
			for _, arg := range args {
				if strings.HasPrefix(arg, "./") {
					exists(t, arg)
				}
			}
		case "WORKDIR", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD":
		default:
			t.Errorf("%q is no instruction that we know", keyword)
		}
		names = append(names, keyword)
	}
	if names[0] != "FROM" || !slices.Equal(got["ENTRYPOINT"], []string{`["/bin/bodkin"]`}) {
		t.Errorf("it begins with %s and runs %v", names[0], got["ENTRYPOINT"])
	}
	knows(t, strings.FieldsFunc(strings.Join(got["CMD"], " "), func(r rune) bool { return strings.ContainsRune(`[]", `, r) }))
	if want := strconv.Itoa(rendezvous.DefaultPort) + "/udp"; !slices.Contains(got["EXPOSE"], want) {
		t.Errorf("it exposes %v, and the server's port is %s", got["EXPOSE"], want)
	}
	if strings.Join(got["USER"], "") == "" || strings.HasPrefix(got["USER"][0], "0") || strings.HasPrefix(got["USER"][0], "root") {
		t.Errorf("it runs as %v", got["USER"])
	}
}

// copied checks the sources of a COPY.
func copied(t *testing.T, args []string, stages map[string]bool) {
	t.Helper()
	for _, arg := range args[:len(args)-1] {
		if stage, ok := strings.CutPrefix(arg, "--from="); ok {
			if !stages[stage] {
				t.Errorf("COPY %v: no such stage", args)
			}
			return
		}
		if !strings.HasPrefix(arg, "--") {
			exists(t, arg)
		}
	}
}

func exists(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("../..", name)); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
