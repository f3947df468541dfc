package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chandler/events"
	"chandler/events/resource"
)

func accountKinds() []events.AccountKind {
	return []events.AccountKind{events.NetworkAccess, events.SoftwareInstallation, events.ClientTokenDomain}
}

func accountMethods() []string {
	return []string{events.ByPassword, events.ByBearer, events.ByClientCertificate}
}

func accountSet(a *app) *cobra.Command {
	var request events.AccountRequest
	var kind, secretFile, keepOld string
	cmd := &cobra.Command{
		Use: "set NAME --kind KIND --user USER", Short: "Make or change an account", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAccounts),
		Long: `The secret is asked for on a terminal, or read from --secret-file or standard input. It goes into the
credential service, and comes out of it only for a job that may use it, sealed to the agent that carries the job out.

The kinds: network-access reaches external sources and never runs anything; software-installation runs the programs
of legacy clients whose package names it as installation-account, and reads for them; client-token-domain runs
administrative programs on legacy domain controllers, and a fleet has one.

Several network access accounts share the work by their scope: of those that may be used for a deployment's
collection and on a machine of a domain, the one whose --resource covers an address most closely is lent. A resource
is an address (smb://files.example/software) or a path of a share (\\files.example\software), and stands for itself
and all below. A machine says itself which domain it is of: --domain chooses, and protects nothing.

Setting an account again replaces all of it: user, scope and secret are said together, so that a changed scope needs
the secret once more. The secret becomes the next version; "chandler account rotate" changes the secret alone.
With --keep-old those who were lent the former secret go on with it for so long.`,
		Example: `  chandler account set corp-installer --kind software-installation --user 'EXAMPLE\installer' --secret-file installer.secret
  chandler account set corp-reader --kind network-access --user 'EXAMPLE\reader' --resource '\\files.example\software'
  chandler account set lab-web --kind network-access --user lab --method bearer --resource https://www.example/lab --collection lab`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			request.Account, request.Kind = args[0], events.AccountKind(kind)
			if err := checkAccount(&request); err != nil {
				return err
			}
			var err error
			if request.KeepOld, err = parseKeepOld(keepOld); err != nil {
				return err
			}
			a.tellUnknownCollections(cmd, c, request.Collections)
			if request.Secret, err = a.accountSecret(cmd, secretFile, request.Method); err != nil {
				return err
			}
			set, err := ask(cmd.Context(), c, events.AccountSetCall, request)
			clear(request.Secret)
			if err != nil {
				return err
			}
			done := "changed"
			if set.Version == 1 {
				done = "made"
			}
			return a.answer(cmd, set, set.Account, "account %s is %s: version %d%s", set.Account, done, set.Version, a.keptText(set))
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&kind, "kind", "", joined(accountKinds()))
	flags.StringVar(&request.User, "user", "", "name of the user, with its domain where there is one")
	flags.StringVar(&request.Method, "method", "", "how it proves itself: password (default), or over https bearer or client-certificate")
	flags.StringSliceVar(&request.Resources, "resource", nil, "what it may be used for, such as smb://files.example/software")
	flags.StringSliceVar(&request.Collections, "collection", nil, "only for deployments to these collections")
	flags.StringVar(&request.Domain, "domain", "", "only on machines of this domain")
	keepOldFlag(cmd, &keepOld)
	secretFlag(cmd, &secretFile)
	_ = cmd.MarkFlagRequired("kind")
	_ = cmd.MarkFlagRequired("user")
	completeWords(cmd, "kind", collect(accountKinds(), func(k events.AccountKind) string { return string(k) })...)
	completeWords(cmd, "method", accountMethods()...)
	a.completeFlag(cmd, "collection", completeCollections)
	return cmd
}

func accountRotate(a *app) *cobra.Command {
	var rotation events.AccountRotation
	var secretFile, keepOld string
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Give an account its next secret", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeArguments(completeAccounts),
		Long: `Makes a new secret the current one and changes nothing else of the account. It is asked for on a
terminal, or read from --secret-file or standard input.

Without --keep-old those who were lent the former secret lose it at once, and are lent the new one when they ask again.
With it they go on with the former for so long: for a source that takes both for a while.`,
		Example: `  chandler account rotate corp-reader --secret-file reader.secret --keep-old 24h`,
		RunE: a.connected(func(cmd *cobra.Command, c *client, args []string) error {
			rotation.Account = args[0]
			err := events.ValidToken(rotation.Account)
			if err == nil {
				rotation.KeepOld, err = parseKeepOld(keepOld)
			}
			if err != nil {
				return err
			}
			if rotation.Secret, err = a.readSecret(cmd, secretFile); err != nil {
				return err
			}
			set, err := ask(cmd.Context(), c, events.AccountRotate, rotation)
			clear(rotation.Secret)
			if err != nil {
				return err
			}
			return a.answer(cmd, set, set.Account, "account %s has its next secret, version %d%s", set.Account, set.Version, a.keptText(set))
		}),
	}
	keepOldFlag(cmd, &keepOld)
	secretFlag(cmd, &secretFile)
	return cmd
}

func keepOldFlag(cmd *cobra.Command, keepOld *string) {
	cmd.Flags().StringVar(keepOld, "keep-old", "", "for how long those who were lent the former secret go on with it (24h)")
}

func parseKeepOld(text string) (events.Duration, error) {
	if text == "" {
		return 0, nil
	}
	span, err := parseSpan(text)
	if err != nil {
		return 0, fmt.Errorf("--keep-old: %w", err)
	}
	return events.Duration(span), nil
}

// keptText says until when the former secret counts.
func (a *app) keptText(n events.AccountNotice) string {
	if n.KeepUntil == nil {
		return ""
	}
	return "; those who were lent the former secret go on with it until " + a.shortTime(n.KeepUntil.Truncate(time.Second))
}

// checkAccount says what is wrong before a secret is asked for, and writes resources in their one form.
func checkAccount(r *events.AccountRequest) error {
	if err := events.ValidToken(r.Account); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if !slices.Contains(accountKinds(), r.Kind) {
		return fmt.Errorf("--kind %q: it must be one of %s", r.Kind, joined(accountKinds()))
	}
	if r.Method != "" && !slices.Contains(accountMethods(), r.Method) {
		return fmt.Errorf("--method %q: it must be one of %s", r.Method, joined(accountMethods()))
	}
	for _, name := range r.Collections {
		if err := events.ValidToken(name); err != nil {
			return fmt.Errorf("--collection: %w", err)
		}
	}
	if r.Kind == events.NetworkAccess && len(r.Resources) == 0 {
		return errors.New("--resource is missing: a network access account needs the resources that it may read, such as smb://files.example/software")
	}
	for i, text := range r.Resources {
		pattern, err := onePattern(text)
		if err != nil {
			return fmt.Errorf("--resource %w", err)
		}
		overHTTPS := strings.HasPrefix(pattern, resource.HTTPS+"://")
		if r.Method != "" && r.Method != events.ByPassword && !overHTTPS {
			return fmt.Errorf("--method %s: it is for https:// resources, and %s is none", r.Method, resource.Shown(pattern))
		}
		r.Resources[i] = pattern
	}
	return nil
}

// onePattern is a pattern of resources in its one form; people also write it as the path of a share, and with a star at its
// end. What is wrong is said without quoting a secret.
func onePattern(text string) (string, error) {
	if err := checkReadable(text); err != nil {
		return "", err
	}
	if strings.HasPrefix(text, `\\`) {
		text = strings.TrimSuffix(text, `\*`)
	}
	r, err := resource.ParsePattern(text)
	if err != nil {
		return "", err
	}
	return r.String(), nil
}
