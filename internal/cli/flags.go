package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// envName is the variable of a flag.
func envName(flag string) string {
	return "BODKIN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that were not given from their variables. An
// empty one counts as not given, but for a list, which may be empty.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(envName(f.Name))
		if !ok || f.Changed || f.Name == "help" || value == "" && f.Value.Type() != "stringSlice" {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			errs = append(errs, valueError(envName(f.Name), value, f, err))
		}
	})
	return errors.Join(errs...)
}

// flagError says what a flag needs, where its value was wrong.
func flagError(err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return valueError("--"+bad.GetFlag().Name, bad.GetValue(), bad.GetFlag(), err)
	}
	return err
}

// needs are words for the types of flags whose parsers speak to programmers.
var needs = map[string]string{
	"bool":     "true or false",
	"duration": "a time such as 10s or 1m30s",
	"float64":  "a number such as 0.1",
	"int":      "a whole number",
	"uint64":   "a whole number, not negative",
	"uint16":   "a whole number from 0 to 65535",
}

func valueError(name, value string, f *pflag.Flag, err error) error {
	if what := needs[f.Value.Type()]; what != "" {
		return fmt.Errorf("%s %q: it needs %s", name, value, what)
	}
	return fmt.Errorf("%s %q: %w", name, value, err)
}
