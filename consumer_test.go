package bodkin_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bodkin/natlab/netbed"
)

// A module outside the tree uses the library as the README says, with a replace
// line: what it needs must be exported, and there without asking any network.
func TestConsumerModule(t *testing.T) {
	t.Parallel()
	dir := consumer(t)
	if got := goIn(t, dir, "run", "."); !strings.HasSuffix(got, "hello, world, over udp\n") {
		t.Errorf("the program said %q", got)
	}
}

func TestConsumerModuleInALab(t *testing.T) {
	t.Parallel()
	netbed.Need(t)
	if got := goIn(t, consumer(t), "test", "-v", "."); !strings.Contains(got, "--- PASS: TestTalkBetweenTwoHomes") {
		t.Errorf("the test said %q", got)
	}
}

// The program that the README shows is one.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(text), "\n```go\n")
	program, _, found := strings.Cut(program, "```")
	if !found {
		t.Fatal("the README shows no program")
	}
	dir := consumer(t)
	if err := os.Mkdir(filepath.Join(dir, "readme"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "readme", "main.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	goIn(t, dir, "vet", "./readme")
}

// consumer makes the module of testdata/consumer in a directory of its own. It
// requires what the library does, as after `go mod tidy`: without that, go would
// ask the network for go.mod files that the library itself never needed.
func consumer(t *testing.T) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/consumer")); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(string) string{
		"go.sum": func(sums string) string { return sums },
		"go.mod": func(mod string) string {
			mod = strings.Replace(mod, "module bodkin\n", "module consumer\n", 1)
			return mod + fmt.Sprintf("\nrequire bodkin v0.0.0\n\nreplace bodkin => %q\n", root)
		},
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(edit(string(b))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// goIn runs the go command, which may not use the network.
func goIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOTOOLCHAIN=local", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
