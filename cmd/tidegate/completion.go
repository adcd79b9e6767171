package main

import (
	"fmt"
	"os"
	"strings"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// completions tell each shell to ask BIN, which then finds the line in COMP_LINE.
var completions = map[string]string{
	"bash": "complete -o default -C BIN tidegate\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o default -C BIN tidegate\n",
	"fish": `function __complete_tidegate
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    BIN
end
complete -c tidegate -a "(__complete_tidegate)"
`,
}

func (c *completionCmd) Run() error {
	bin, err := os.Executable()
	if err != nil {
		return fmt.Errorf("where this program is cannot be found out: %w", err)
	}
	if strings.ContainsAny(bin, " \t\n'\"\\$`&;<>()*?[]#~!{}|") {
		return fmt.Errorf("this program is at %q, which a shell does not take: move it", bin)
	}
	fmt.Print(strings.ReplaceAll(completions[c.Shell], "BIN", bin))
	return nil
}
