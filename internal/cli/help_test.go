package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls f for each command that people may use, topics left out.
func everyCommand(f func(c *cobra.Command)) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || !c.Runnable() && !c.HasSubCommands() {
			return
		}
		f(c)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit((&app{}).root())
}

func TestEveryCommandAndFlagIsExplained(t *testing.T) {
	t.Parallel()
	commands := 0
	everyCommand(func(c *cobra.Command) {
		commands++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q", c.CommandPath(), c.Short)
		}
		if c.Long == "" {
			t.Errorf("%s has no Long", c.CommandPath())
		}
		if c.Example == "" && c.HasParent() && !c.Hidden {
			t.Errorf("%s has no Example", c.CommandPath())
		}
		for line := range strings.SplitSeq(c.Example, "\n") {
			if line != "" && !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: the example %q is not indented", c.CommandPath(), line)
			}
		}
		c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			switch {
			case usage == "":
				t.Errorf("%s --%s has no usage", c.CommandPath(), f.Name)
			case value == "string" || value == "strings":
				t.Errorf("%s --%s: its value has no `NAME`, and help would show %q", c.CommandPath(), f.Name, value)
			}
		})
	})
	if commands < 20 {
		t.Errorf("only %d commands were found", commands)
	}
}

// Each command and each of its flags stands on its page.
func TestEveryCommandHasItsPage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := (&app{}).root()
	if err := writePages(root, dir); err != nil {
		t.Fatal(err)
	}
	everyCommand(func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		page, err := os.ReadFile(filepath.Join(dir, pageName(c)+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(string(page), roff("--"+f.Name)) {
				t.Errorf("the page of %s says nothing of --%s", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "completion" && !strings.Contains(string(page), roff(pageName(sub))) {
				t.Errorf("the page of %s says nothing of %s", c.CommandPath(), sub.Name())
			}
		}
	})
}

// documents are what people read.
func documents(t *testing.T) string {
	t.Helper()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	var all strings.Builder
	for _, p := range append(pages, "../../README.md") {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func TestEveryCommandIsInTheDocuments(t *testing.T) {
	t.Parallel()
	all := documents(t)
	everyCommand(func(c *cobra.Command) {
		if !c.Hidden && c.HasParent() && !strings.Contains(all, c.CommandPath()) {
			t.Errorf("neither README.md nor docs mentions %s", c.CommandPath())
		}
	})
}

func TestEverySettingIsInTheDocuments(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range settings() {
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/config.md has no row `%s`", name)
		}
	}
}
