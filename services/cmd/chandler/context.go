package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "context", Short: "Which fleet the other commands speak to"}
	cmd.AddCommand(contextAdd(a), contextUse(a), contextList(a), contextShow(a), contextRemove(a))
	return cmd
}

func contextAdd(a *app) *cobra.Command {
	given := connection{}
	cmd := &cobra.Command{
		Use: "add NAME [--server URL]", Short: "Make or change a context, and select it if there is no other", Args: cobra.ExactArgs(1),
		Long: `Makes a context, or changes what flags name of one that is there. Files and directories stay where they are;
the context only names them. --flag '' takes a value away.`,
		Example: `  chandler context add oslo --server tls://broker.example:4222 --credentials ada.creds --ca ca.pem`,
		RunE: func(cmd *cobra.Command, args []string) error {
			given.Name = args[0]
			return a.addContext(cmd, given)
		},
	}
	for _, f := range given.settings() {
		cmd.Flags().StringVar(f.value, f.flag, "", f.usage)
	}
	return cmd
}

// setting is one part of a context that a flag sets.
type setting struct {
	flag, usage string
	value       *string
	kind        settingKind
}

type settingKind int

const (
	settingWord settingKind = iota
	settingFile
	settingDirectory
	settingKey // a file, or a key that an agent holds
)

// settings are what flags of `context add` change.
func (c *connection) settings() []setting {
	return []setting{
		{"server", "address of the broker, or several separated by commas", &c.Server, settingWord},
		{"credentials", "file with the NATS user to connect as (chandler user add makes it)", &c.Credentials, settingFile},
		{"ca", "file with the authority that signed the fleet's certificates", &c.CA, settingFile},
		{"administrator", "directory of the operator's keys, which chandler up made", &c.Administrator, settingDirectory},
		{"trust-dir", "directory that chandler trust init made", &c.TrustDir, settingDirectory},
		{"signing-key", "key that signs orders: a file, or ssh-agent:FINGERPRINT", &c.SigningKey, settingKey},
		{"data", "data directory of the server, where it is on this machine", &c.Data, settingDirectory},
		{"caller", "name that the services' audit shows, on a broker that asks for no credentials", &c.Caller, settingWord},
	}
}

// addContext changes what was given of a context, whose files must be there.
func (a *app) addContext(cmd *cobra.Command, given connection) error {
	store, err := a.contexts()
	if err != nil {
		return err
	}
	there, err := exists(store.file(given.Name))
	if err != nil {
		return err
	}
	c := connection{Name: given.Name, Caller: defaultCaller}
	if there {
		if c, err = store.load(given.Name); err != nil {
			return err
		}
	}
	if err := c.change(cmd, given); err != nil {
		return err
	}
	if err := store.save(c); err != nil {
		return err
	}
	selected, err := store.selected()
	if err == nil && selected == "" {
		selected, err = c.Name, store.choose(c.Name)
	}
	if err != nil {
		return err
	}
	done, chosen := "is made", ": `"+a.self+" context use "+c.Name+"` selects it"
	if there {
		done = "is changed"
	}
	if selected == c.Name {
		chosen = ", and is selected"
	}
	return a.answer(cmd, contextRow{c, selected == c.Name}, c.Name, "context %s %s: %s as %s%s", c.Name, done, c.Server, c.Caller, chosen)
}

// change takes over what flags gave. The administrator's directory has the first administrator's credentials,
// and says which fleet it is of; credentials say who the caller is.
func (c *connection) change(cmd *cobra.Command, given connection) error {
	from := given.settings()
	for i, to := range c.settings() {
		if !cmd.Flags().Changed(to.flag) {
			continue
		}
		value, err := to.check(*from[i].value)
		if err != nil {
			return err
		}
		*to.value = value
	}
	if c.Server == "" {
		return fmt.Errorf("context %s is new: say --server", c.Name)
	}
	if cmd.Flags().Changed("administrator") && c.Administrator != "" {
		fleet, err := readFleet(c.Administrator)
		if err != nil {
			return fmt.Errorf("--administrator: %w", err)
		}
		c.Fleet = fleet.Fleet
		if there, _ := exists(c.Credentials); !there && !cmd.Flags().Changed("credentials") {
			c.Credentials = filepath.Join(c.Administrator, adminCreds)
		}
	}
	if c.Credentials != "" {
		user, err := readUser(c.Credentials)
		if err != nil {
			return err
		}
		clear(user.seed)
		c.Caller = user.name
	}
	return c.validate()
}

// check makes paths absolute, and refuses what is not there.
func (s setting) check(value string) (string, error) {
	if s.kind == settingWord || value == "" || s.kind == settingKey && strings.HasPrefix(value, "ssh-agent:") {
		return value, nil
	}
	info, err := os.Stat(value)
	switch {
	case err != nil:
		return "", fmt.Errorf("--%s: %w", s.flag, err)
	case s.kind == settingDirectory && !info.IsDir():
		return "", fmt.Errorf("--%s: %s is not a directory", s.flag, value)
	case s.kind != settingDirectory && !info.Mode().IsRegular():
		return "", fmt.Errorf("--%s: %s is not a file", s.flag, value)
	}
	return filepath.Abs(value)
}

func contextUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Select a context", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			if err := store.choose(args[0]); err != nil {
				return err
			}
			c, err := store.load(args[0])
			if err != nil {
				return err
			}
			return a.answer(cmd, contextRow{c, true}, c.Name, "context %s is selected: %s", c.Name, c.Server)
		},
	}
}

// contextRow is a context as listings show it.
type contextRow struct {
	connection
	Selected bool `json:"selected"`
}

var contextColumns = listing[contextRow]{
	name: func(r contextRow) string { return r.Name },
	columns: []column[contextRow]{
		{"", false, func(r contextRow) any { return mark(r.Selected, "*") }},
		{"NAME", false, func(r contextRow) any { return r.Name }},
		{"SERVER", false, func(r contextRow) any { return r.Server }},
		{"CALLER", false, func(r contextRow) any { return r.Caller }},
		{"FLEET", true, func(r contextRow) any { return r.Fleet }},
		{"CREDENTIALS", true, func(r contextRow) any { return r.Credentials }},
		{"SIGNING KEY", true, func(r contextRow) any { return r.SigningKey }},
		{"TRUST", true, func(r contextRow) any { return r.TrustDir }},
	},
}

func contextList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List contexts", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			all, err := store.list()
			if err != nil {
				return err
			}
			selected, err := store.selected()
			if err != nil {
				return err
			}
			rows := make([]contextRow, 0, len(all))
			for _, c := range all {
				rows = append(rows, contextRow{c, c.Name == selected})
			}
			return contextColumns.show(cmd, a.output, rows)
		},
	}
}

func contextShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "Show a context", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.context = args[0]
			}
			c, err := a.current()
			if err != nil {
				return err
			}
			return writeDetail(cmd.OutOrStdout(), a.output, c, c.Name, []field{
				{"Name", c.Name}, {"Server", c.Server}, {"Caller", c.Caller}, {"Fleet", c.Fleet}, {"Credentials", c.Credentials}, {"CA", c.CA},
				{"Administrator", c.Administrator}, {"Data", c.Data}, {"Trust directory", c.TrustDir}, {"Signing key", c.SigningKey},
			})
		},
	}
}

func contextRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Forget a context", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.contexts()
			if err != nil {
				return err
			}
			c, err := store.load(args[0])
			if err != nil {
				return err
			}
			if err := store.remove(args[0]); err != nil {
				return err
			}
			return a.answer(cmd, contextRow{connection: c}, c.Name, "context %s is forgotten; its files stay where they are", c.Name)
		},
	}
}

func (a *app) completeContext(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	store, err := a.contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := store.list()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range all {
		names = append(names, fmt.Sprintf("%s\t%s", c.Name, c.Server))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
