package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/enrolment"
)

func newToken(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens by which machines enrol"}
	cmd.AddCommand(tokenCreate(a), tokenList(a), tokenRemove(a))
	return cmd
}

// tokenFlags are those of token create, as typed.
type tokenFlags struct {
	uses                     int
	single, controller       bool
	approval                 bool
	expires, site, kind, out string
	tags, servers            []string
}

func tokenCreate(a *app) *cobra.Command {
	var f tokenFlags
	cmd := &cobra.Command{
		Use: "create [NAME]", Short: "Make a token, and show how machines enrol with it", Args: cobra.MaximumNArgs(1),
		Long: `Makes a token: one secret string that says where the broker is, which CA and which root keys to believe,
and lets machines ask for an identity. Its key is made here; the services learn the public half alone, so the
token is shown once and can be shown by nobody again.

What a token says of machines (tags, site, kind) goes before what they say of themselves.`,
		Example: `  chandler token create                                      one machine, within a day
  chandler token create oslo --uses 500 --expires 14d --site oslo --tags office --out oslo.token
  chandler token create dc --client-kind legacy --domain-controller --approval`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			if err := a.only(formTable, formWide, formJSON, formYAML); err != nil {
				return err
			}
			name := "t-" + randomName()
			if len(args) == 1 {
				name = args[0]
			}
			warnController(cmd, events.ClientKind(f.kind), f.controller)
			return a.createToken(cmd, c, name, f)
		}),
	}
	flags := cmd.Flags()
	flags.IntVar(&f.uses, "uses", 1, "how many machines may enrol with it; 0: any number")
	flags.BoolVar(&f.single, "single-use", false, "one machine, as --uses 1")
	flags.StringVar(&f.expires, "expires", "24h", "how long it is good for")
	flags.StringSliceVar(&f.tags, "tags", nil, "tags of the machines")
	flags.StringVar(&f.site, "site", "", "site of the machines")
	flags.StringVar(&f.kind, "client-kind", "", "kind of the machines: advanced or legacy")
	flags.BoolVar(&f.controller, "domain-controller", false, "the machines are domain controllers, which matters to legacy clients")
	flags.BoolVar(&f.approval, "approval", false, "machines wait until an administrator approves them")
	flags.StringSliceVar(&f.servers, "server", nil, "addresses of the broker as the machines reach it (default: those of the context)")
	flags.StringVar(&f.out, "out", "", "write the token to this new file, readable by its owner alone, and do not show it")
	cmd.MarkFlagsMutuallyExclusive("uses", "single-use")
	completeWords(cmd, "client-kind", string(events.Advanced), string(events.Legacy))
	return cmd
}

func randomName() string {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

// request checks the flags and says what is asked for.
func (f tokenFlags) request(a *app, name, public string) (events.TokenRequest, error) {
	if err := events.ValidToken(name); err != nil {
		return events.TokenRequest{}, fmt.Errorf("token: %w", err)
	}
	if f.uses < 0 {
		return events.TokenRequest{}, fmt.Errorf("--uses %d: it must be 1 or more, or 0 for any number", f.uses)
	}
	span, err := parseSpan(f.expires)
	if err == nil && span == 0 {
		err = errors.New("a token that has expired enrols nobody")
	}
	if err != nil {
		return events.TokenRequest{}, fmt.Errorf("--expires: %w", err)
	}
	kind := events.ClientKind(f.kind)
	if kind != "" && kind != events.Advanced && kind != events.Legacy {
		return events.TokenRequest{}, fmt.Errorf("--client-kind %q: it must be %s or %s", f.kind, events.Advanced, events.Legacy)
	}
	return events.TokenRequest{Token: public, Name: name, Uses: f.uses, Expires: a.now().Add(span).UTC(), Approval: f.approval,
		Conferred: events.Conferred{Tags: f.tags, Site: f.site, ClientKind: kind, DomainController: f.controller}}, nil
}

// madeToken is what -o json gives: the one time that the secret is told.
type madeToken struct {
	Name      string            `json:"name"`
	Key       string            `json:"key"`             // public
	Token     string            `json:"token,omitempty"` // the secret; left out where it was written to File
	File      string            `json:"file,omitempty"`
	Uses      int               `json:"uses"`
	Expires   string            `json:"expires"`
	Approval  bool              `json:"approval,omitempty"`
	Conferred events.Conferred  `json:"conferred"`
	Install   map[string]string `json:"install"` // by operating system, for a token in a file
}

func (a *app) createToken(cmd *cobra.Command, c *client, name string, f tokenFlags) error {
	if there, err := exists(f.out); err != nil {
		return err
	} else if there {
		return fmt.Errorf("%s is there already: say another --out", f.out)
	}
	secret, view, err := a.makeToken(cmd.Context(), c, name, f)
	if err != nil {
		return err
	}
	made := madeToken{Name: view.Name, Key: view.Token, Token: secret, Uses: view.Uses, Expires: timeData(view.Expires), Approval: view.Approval, Conferred: view.Conferred}
	file := "chandler.token"
	if f.out != "" {
		if err := writeNew(f.out, []byte(secret+"\n")); err != nil {
			return fmt.Errorf("%w; the token is of no use to anybody now: `%s token rm %s`", err, a.self, name)
		}
		made.Token, made.File, file = "", f.out, f.out
	}
	made.Install = installCommands(file)
	if !people(a.output) {
		return writeData(cmd.OutOrStdout(), a.output, made)
	}
	a.tellToken(cmd, made, view)
	warnServers(cmd, f.brokers(c), "for others say --server")
	return nil
}

// brokers are the addresses that machines get.
func (f tokenFlags) brokers(c *client) []string {
	if len(f.servers) > 0 {
		return f.servers
	}
	return strings.Split(c.Server, ",")
}

// makeToken makes the secret here and tells the service the public half.
func (a *app) makeToken(ctx context.Context, c *client, name string, f tokenFlags) (string, events.TokenView, error) {
	bundle, err := a.followTrust(ctx, c)
	if err != nil {
		return "", events.TokenView{}, fmt.Errorf("a token says which root keys machines are to believe: %w", err)
	}
	ca, err := caHash(c.CA)
	if err != nil {
		return "", events.TokenView{}, err
	}
	seed, public, err := enrolment.NewKey()
	if err != nil {
		return "", events.TokenView{}, err
	}
	defer clear(seed)
	request, err := f.request(a, name, public)
	if err != nil {
		return "", events.TokenView{}, err
	}
	view, err := ask(ctx, c, events.TokenCreate, request)
	if err != nil {
		return "", view, err
	}
	secret, err := enrolment.Token{Servers: f.brokers(c), CA: ca, Root: bundle.Roots.Fingerprint(), JWT: view.EnrolmentJWT, Seed: seed}.Encode()
	if err != nil {
		_, undo := ask(ctx, c, events.TokenRemove, events.Named{Name: name})
		return "", view, errors.Join(err, undo)
	}
	return secret, view, nil
}

// caHash is the SHA-256 of the certificate in a file; "" without a file.
func caHash(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	ca, err := readCertificate(file)
	if err != nil {
		return "", fmt.Errorf("read the authority that the context names: %w", err)
	}
	sum := sha256.Sum256(ca.Raw)
	return hex.EncodeToString(sum[:]), nil
}

// writeNew writes a secret to a file that is not there yet, for its owner alone.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(name)))
	}
	return nil
}

// installCommands are the whole commands by operating system. The token is in a file: arguments are read by
// everybody on a machine, and shells remember them.
func installCommands(file string) map[string]string {
	return map[string]string{
		"linux":   "sudo " + shellLine([]string{"./" + installedAgent, "install", "--token-file", file}),
		"darwin":  "sudo " + shellLine([]string{"./" + installedAgent, "install", "--token-file", file}),
		"windows": `.\` + installedAgent + ".exe install --token-file '" + strings.ReplaceAll(file, "'", "''") + "'",
	}
}

func (a *app) tellToken(cmd *cobra.Command, made madeToken, view events.TokenView) {
	out := cmd.OutOrStdout()
	who := "any number of machines enrol"
	if made.Uses > 0 {
		who = plural(made.Uses, "machine enrols", "machines enrol")
	}
	if made.Approval {
		who += ", each when approved (" + a.self + " agent approve),"
	}
	note(out, "token %s: %s with it until %s", made.Name, who, a.longTime(view.Expires))
	if made.File != "" {
		note(out, "It is in %s. Take that file to each machine, as a secret, and there run:", made.File)
	} else {
		note(out, "It is a secret and shown this once:\n\n%s\n", made.Token)
		note(out, "Put that line into a file chandler.token that its owner alone reads, and on each machine run:")
	}
	note(out, "\n  Linux    %s", made.Install["linux"])
	note(out, "  macOS    %s", made.Install["darwin"])
	note(out, "  Windows  %s   (PowerShell as administrator)\n", made.Install["windows"])
	note(out, "Run again it changes nothing. --token-file - reads the token from standard input.")
}

// warnServers says where other machines cannot reach the broker, and what helps.
func warnServers(cmd *cobra.Command, servers []string, advice string) {
	for _, server := range servers {
		if u, err := url.Parse(server); err == nil && loopbackHost(u.Hostname()) {
			note(cmd.ErrOrStderr(), "WARNING: %s reaches the broker from this machine alone: %s", withoutUser(server), advice)
		}
	}
}

func (a *app) tokenColumns() listing[events.TokenView] {
	type v = events.TokenView
	return listing[v]{
		name: func(r v) string { return r.Name },
		columns: []column[v]{
			{"NAME", false, func(r v) any { return r.Name }},
			{"USED", false, func(r v) any { return countCell(r.Used) }},
			{"OF", false, func(r v) any {
				if r.Uses == 0 {
					return "any number"
				}
				return countCell(r.Uses)
			}},
			{"EXPIRES", false, func(r v) any { return a.timeCell(r.Expires) }},
			{"APPROVAL", false, func(r v) any { return mark(r.Approval, "yes") }},
			{"SITE", false, func(r v) any { return r.Conferred.Site }},
			{"TAGS", false, func(r v) any { return r.Conferred.Tags }},
			{"KIND", false, func(r v) any { return r.Conferred.ClientKind }},
			{"DOMAIN CONTROLLER", true, func(r v) any { return mark(r.Conferred.DomainController, "yes") }},
			{"KEY", true, func(r v) any { return r.Token }},
			{"CREATED", true, func(r v) any { return a.agoCell(r.At) }},
			{"BY", true, func(r v) any { return r.By }},
		},
	}
}

func tokenList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List tokens, without their secrets", Args: cobra.NoArgs,
		RunE: a.connected(func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := ask(cmd.Context(), c, events.TokenList, events.Nothing{})
			if err != nil {
				return err
			}
			for i := range all.Tokens {
				all.Tokens[i].EnrolmentJWT = ""
			}
			return a.tokenColumns().show(cmd, a.output, all.Tokens)
		}),
	}
}

func tokenRemove(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "rm NAME", Aliases: []string{"remove"}, Short: "Let nobody enrol with a token any more; who has, stays", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeTokens),
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			removed, err := ask(cmd.Context(), c, events.TokenRemove, events.Named{Name: args[0], Why: why})
			if err != nil {
				return err
			}
			note(cmd.ErrOrStderr(), "token %s is removed; %s enrolled with it", args[0], plural(removed.Used, "machine has", "machines have"))
			return nil
		}),
	}
	cmd.Flags().StringVar(&why, "why", "", "why, kept with the event")
	return cmd
}

func completeTokens(ctx context.Context, c *client) ([]string, error) {
	all, err := ask(ctx, c, events.TokenList, events.Nothing{})
	return collect(all.Tokens, func(t events.TokenView) string { return t.Name }), err
}
