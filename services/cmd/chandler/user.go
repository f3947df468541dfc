package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/access"
)

func newUser(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "People and programs that speak to the fleet, and what they may"}
	cmd.AddCommand(userAdd(a), userList(a), userRevoke(a))
	return cmd
}

// userFlags are those of user add, as typed.
type userFlags struct {
	role, expires, out string
	events             []string
	tlsNames           []string // of a leaf node
}

// peopleRoles are what people and their programs can be.
func peopleRoles() []string {
	return []string{string(access.Administrator), string(access.Deployer), string(access.Viewer), string(access.Integrator)}
}

// userRoles are all that `user add` makes: agents get their identity by a token.
func userRoles() []string {
	roles := append(peopleRoles(), string(access.Leaf), string(access.Provisioner))
	for _, name := range access.Services() {
		roles = append(roles, string(access.Service(name)))
	}
	return roles
}

func userAdd(a *app) *cobra.Command {
	var f userFlags
	cmd := &cobra.Command{
		Use: "add NAME --role ROLE", Short: "Make a user, and the file with which it connects", Args: cobra.ExactArgs(1),
		Long: `Makes a key and a credentials file that chandler, the nats command and every NATS client take. The key is
made here and kept by nobody else. An administrator may do everything but sign; a deployer changes packages,
collections and deployments; a viewer looks; an integrator hears the events of --events and nothing more. A leaf
is a site's leaf node, and what is made is a directory, for chandler leaf. The roles of services
(service-scheduling…) and provisioner are for chandler serve.

Needs the administrator's directory, which the context names.`,
		Example: `  chandler user add ada --role deployer --out ada.creds
  chandler user add oslo --role leaf --out oslo.leaf
  chandler user add wallboard --role integrator --events job.failed,deployment.progressed --expires 365d`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if err := a.only(formTable, formWide, formJSON, formYAML, formName); err != nil {
				return err
			}
			if f.role == string(access.Leaf) {
				return a.addLeaf(cmd, c, args[0], f)
			}
			return a.addUser(cmd, c, args[0], f)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.role, "role", "", joined(userRoles()))
	flags.StringSliceVar(&f.events, "events", nil, "event types that an integrator hears (chandler events types lists them)")
	flags.StringVar(&f.expires, "expires", "", "how long the credentials are good for, as 90d (default: 365d for people, for ever for services)")
	flags.StringVar(&f.out, "out", "", "write the credentials to this new file (default: NAME.creds), of a leaf to this new directory (NAME.leaf)")
	flags.StringSliceVar(&f.tlsNames, "tls-name", nil, "name or address by which a site's agents reach its leaf node, for a certificate of the fleet's authority")
	_ = cmd.MarkFlagRequired("role")
	completeWords(cmd, "role", userRoles()...)
	completeWords(cmd, "events", eventTypes()...)
	return cmd
}

// peopleLife is how long people's credentials are good for where nothing else is said.
const peopleLife = 365 * 24 * time.Hour

// addUser tells the fleet before there is anything to connect with: nobody speaks to it of whom it does not
// know.
func (a *app) addUser(cmd *cobra.Command, c *client, name string, f userFlags) error {
	out := cellOr(f.out, name+".creds")
	if there, err := exists(out); err != nil {
		return err
	} else if there {
		return fmt.Errorf("%s is there already: say another --out", out)
	}
	role := access.Role(f.role)
	user, err := f.user(name, role, a.now())
	if err != nil {
		return err
	}
	seed, key, err := newUserKey()
	if err != nil {
		return err
	}
	defer clear(seed)
	user.Key = key
	token, err := mintUser(c.connection, role, user)
	if err != nil {
		return err
	}
	data, err := access.Credentials(token, seed)
	if err != nil {
		return err
	}
	defer clear(data)
	added, err := ask(cmd.Context(), c, events.UserAdd, events.UserNotice{User: name, Role: string(role), Key: key, Events: user.Events, Expires: user.Expires})
	if err != nil {
		return err
	}
	if err := writeNew(out, data); err != nil {
		return fmt.Errorf("%w; the user is of no use to anybody now: `%s user revoke %s`", err, a.self, name)
	}
	path, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if !people(a.output) {
		return writeDetail(cmd.OutOrStdout(), a.output, madeUser{added, path}, name, nil)
	}
	note(cmd.OutOrStdout(), "user %s, %s, %s. The credentials are in %s: give them to nobody else.", name, role, until(user.Expires, a), out)
	a.tellUser(cmd, c, role, user, path)
	return nil
}

// madeUser is what -o json gives.
type madeUser struct {
	events.UserNotice
	File string `json:"file"`
}

func until(expires time.Time, a *app) string {
	if expires.IsZero() {
		return "without an end"
	}
	return "until " + a.longTime(expires)
}

// tellUser says how to connect, also with the nats command, by example of an event.
func (a *app) tellUser(cmd *cobra.Command, c *client, role access.Role, user access.User, file string) {
	if !slices.Contains(peopleRoles(), string(role)) {
		note(cmd.OutOrStdout(), "Put it into the directory of `%s serve --identity`, or name it with --credentials.", a.self)
		return
	}
	add := []string{a.self, "context", "add", user.Name, "--server", c.Server, "--credentials", file}
	plain := []string{"nats", "--server", c.Server, "--creds", file, "--inbox-prefix", "_INBOX." + user.Name}
	if c.CA != "" {
		add, plain = append(add, "--ca", c.CA), append(plain, "--tlsca", c.CA)
	}
	heard := events.JobFailed.Declaration
	if role == access.Integrator {
		heard, _ = events.TypeNamed(user.Events[0]) // checked before
	} else {
		note(cmd.OutOrStdout(), "  %s", strings.Join(add, " "))
	}
	note(cmd.OutOrStdout(), "  %s sub '%s'", strings.Join(plain, " "), heard.Subject("*"))
	a.tellCarried(cmd, c, role, user.Name, file)
}

// tellCarried says what makes the user at home on another machine.
func (a *app) tellCarried(cmd *cobra.Command, c *client, role access.Role, name, file string) {
	out := cmd.OutOrStdout()
	carried, base := file, filepath.Base(file)
	add := []string{a.self, "context", "add", name, "--server", c.Server, "--credentials", base}
	if c.CA != "" {
		carried, add = carried+" and "+c.CA, append(add, "--ca", filepath.Base(c.CA))
	}
	if role == access.Integrator {
		note(out, "On another machine the same, with %s carried there.", carried)
		return
	}
	note(out, "On another machine, with %s carried there:\n  %s", carried, strings.Join(add, " "))
	warnServers(cmd, strings.Split(c.Server, ","), "there name the broker by another address")
	if role != access.Deployer {
		return
	}
	note(out, "To sign, there: %s trust pin FINGERPRINT (which trust init printed), %s trust key %s.key --new > %s.pub, %s context add %s --signing-key %s.key", a.self, a.self, name, name, a.self, name, name)
	note(out, "and here: %s trust add %s --key %s.pub", a.self, name, name)
}

// user checks the flags.
func (f userFlags) user(name string, role access.Role, now time.Time) (access.User, error) {
	u := access.User{Name: name}
	if !slices.Contains(userRoles(), f.role) {
		return u, fmt.Errorf("--role %q: there are %s", f.role, joined(userRoles()))
	}
	if err := events.ValidToken(name); err != nil {
		return u, fmt.Errorf("user: %w", err)
	}
	for _, given := range f.events {
		d, ok := events.TypeNamed(given)
		if !ok {
			return u, fmt.Errorf("--events: there is no event type %q: `chandler events types` lists them", given)
		}
		u.Events = append(u.Events, d.Name)
	}
	switch {
	case role == access.Integrator && len(u.Events) == 0:
		return u, errors.New("an integrator hears only what --events names: name at least one")
	case role != access.Leaf && len(f.tlsNames) > 0:
		return u, errors.New("--tls-name is for leaf nodes: the others serve nothing")
	case role != access.Integrator && len(u.Events) > 0:
		return u, errors.New("--events is for integrators: the other roles hear what they may")
	}
	life := time.Duration(0)
	if slices.Contains(peopleRoles(), f.role) {
		life = peopleLife
	}
	if f.expires != "" {
		var err error
		if life, err = parseSpan(f.expires); err == nil && life == 0 {
			err = errors.New("credentials that have expired are of no use")
		}
		if err != nil {
			return u, fmt.Errorf("--expires: %w", err)
		}
	}
	if life > 0 {
		u.Expires = now.Add(life).UTC().Truncate(time.Second)
	}
	return u, nil
}

// mintUser signs with the role's key, which is in the administrator's directory.
func mintUser(where connection, role access.Role, user access.User) (string, error) {
	if where.Administrator == "" {
		return "", fmt.Errorf("users are made with the keys of the administrator's directory, and context %s names none: `chandler context add %s --administrator DIR`", where.Name, where.Name)
	}
	fleet, err := readFleet(where.Administrator)
	if err != nil {
		return "", err
	}
	if where.Fleet != "" && where.Fleet != fleet.Fleet {
		return "", fmt.Errorf("%s is of fleet %s, and context %s of fleet %s", where.Administrator, fleet.Fleet, where.Name, where.Fleet)
	}
	signing, err := readSeed(roleKey(where.Administrator, role))
	if err != nil {
		return "", err
	}
	defer signing.Wipe()
	return access.Mint(role, signing, fleet.Accounts[role.Account()], user)
}

func roleKey(administrator string, role access.Role) string {
	return filepath.Join(administrator, "roles", string(role)+".nk")
}

func userList(a *app) *cobra.Command {
	type v = events.UserNotice
	columns := listing[v]{
		name: func(r v) string { return r.User },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.User }},
			{"ROLE", false, func(r v) any { return r.Role }},
			{"EXPIRES", false, func(r v) any { return a.timeCell(r.Expires) }},
			{"REVOKED", false, func(r v) any { return mark(r.Revoked, "revoked") }},
			{"EVENTS", true, func(r v) any { return r.Events }},
			{"KEY", true, func(r v) any { return r.Key }},
			{"CHANGED", false, func(r v) any { return a.agoCell(r.At) }},
			{"BY", true, func(r v) any { return r.By }},
			{"WHY", true, func(r v) any { return r.Why }},
		},
	}
	return &cobra.Command{
		Use: "ls", Short: "List users that were made with `user add`", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.UserList, events.Nothing{})
			if err != nil {
				return err
			}
			return columns.show(cmd, a.output, all.Users)
		}),
	}
}

func userRevoke(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Let a user in no more; its connections end at once", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completing(completeUsers),
		Long: `Tells the broker, for which the administrator's directory is needed, and notes it. Done again, it completes
what was cut off.`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			return a.revokeUser(cmd, c, args[0], why)
		}),
	}
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	return cmd
}

// revokeUser tells the broker first: that is what keeps the user out.
func (a *app) revokeUser(cmd *cobra.Command, c *client, name, why string) error {
	if err := c.may(events.UserRevoke.CallDeclaration); err != nil {
		return err
	}
	all, err := ask(cmd.Context(), c, events.UserList, events.Nothing{})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all.Users, func(u events.UserNotice) bool { return u.User == name })
	if i < 0 {
		return fmt.Errorf("there is no user %q: `%s user ls` shows those there are", name, a.self)
	}
	user := all.Users[i]
	if user.Key == c.key {
		return errors.New("that is you: let another administrator do it")
	}
	var refused error
	for _, account := range access.Role(user.Role).Accounts() {
		refused = a.revokeKeys(cmd.Context(), c.connection, account, user.Key)
		if errors.Is(refused, errNoOperator) {
			break
		}
		if refused != nil {
			return fmt.Errorf("nothing was noted: %w", refused)
		}
	}
	if _, err := ask(cmd.Context(), c, events.UserRevoke, events.Named{Name: name, Why: why}); err != nil {
		return err
	}
	if refused != nil {
		return fmt.Errorf("that %s is revoked is noted, but %w", name, refused)
	}
	return a.answer(cmd, user, name, "user %s is revoked: the broker lets %s in no more", name, name)
}

func completeUsers(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.UserList, events.Nothing{})
	return collect(all.Users, func(u events.UserNotice) string { return u.User + "\t" + u.Role }), err
}
