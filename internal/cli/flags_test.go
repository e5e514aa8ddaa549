package cli

import (
	"cmp"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Whatever a flag of any command takes, its variable does.
func TestEveryFlagHasItsVariable(t *testing.T) {
	values := map[string]string{
		"bool": "true", "duration": "7s", "float64": "0.5", "int": "7", "string": "some", "stringSlice": "a,b", "uint16": "7",
	}
	want := map[string]string{"stringSlice": "[a,b]"}
	root := (&app{}).root()
	flags := 0
	for _, c := range root.Commands() {
		if c.RunE == nil {
			continue
		}
		for name := range values {
			t.Run(c.Name()+"/"+name, func(t *testing.T) {
				c, _, err := (&app{}).root().Find([]string{c.Name()})
				if err != nil {
					t.Fatal(err)
				}
				flags += checkVariables(t, c, name, values, want)
			})
		}
	}
	if flags < 40 {
		t.Errorf("only %d flags were found", flags)
	}
}

// checkVariables sets the flags of one type from the environment.
func checkVariables(t *testing.T, c *cobra.Command, kind string, values, want map[string]string) (n int) {
	t.Helper()
	if err := c.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	var found []*pflag.Flag
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == kind && f.Name != "help" {
			found = append(found, f)
			t.Setenv(envName(f.Name), values[kind])
		}
	})
	if err := fromEnvironment(c.Flags()); err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if w := cmp.Or(want[kind], values[kind]); f.Value.String() != w {
			t.Errorf("%s=%s left --%s at %s", envName(f.Name), values[kind], f.Name, f.Value)
		}
	}
	return len(found)
}
