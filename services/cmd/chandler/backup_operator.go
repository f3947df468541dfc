package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"chandler/events/access"
)

func newOperator(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "operator", Short: "The key that says what the fleet's accounts may"}
	cmd.AddCommand(operatorReplace(a))
	return cmd
}

func operatorReplace(a *app) *cobra.Command {
	var data, administrator string
	cmd := &cobra.Command{
		Use: "replace", Short: "Make a new operator for a fleet whose operator's key is lost", Args: cobra.NoArgs,
		Long: `Makes a new operator and signs the fleet's accounts anew, as they are: every agent, service and user stays, and
so does who was revoked. It runs on the machine of the server, while that is stopped: whoever may change its data
directory decides whom its broker believes. In a cluster, give operator.jwt and the accounts to each broker after that. A site's
leaf node needs a directory made anew (chandler user add SITE --role leaf): by the old one it lets no agents in once
anything has changed.

A key that is not lost, but may be known to others, is not made harmless by this alone: no broker may believe it any more.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := a.dataDirectory(data)
			if err != nil {
				return err
			}
			unlock, err := lockDirectory(data)
			if err != nil {
				return err
			}
			defer unlock()
			at := place{data}
			if administrator == "" {
				administrator = at.administrator()
			}
			public, err := replaceOperator(at, administrator)
			if err != nil {
				return err
			}
			return a.answer(cmd, map[string]string{"operator": public}, public, "the fleet's operator is now %s; its key is %s: take it away from here, and keep a copy", public, filepath.Join(administrator, operatorKeyName))
		},
	}
	cmd.Flags().StringVar(&data, "data", "", usageData)
	cmd.Flags().StringVar(&administrator, "administrator-dir", "", "directory of the keys that make users (default: DATA/administrator)")
	return cmd
}

// replaceOperator can be repeated after an interruption: it goes on with the key that it made. fleet.json, by which the
// broker knows its operator, is written last.
func replaceOperator(at place, administrator string) (public string, err error) {
	fleet, err := readFleet(at.identity())
	if err != nil {
		return "", err
	}
	if of, err := readFleet(administrator); err == nil && of.Fleet != fleet.Fleet {
		return "", fmt.Errorf("%s is of fleet %s, and this is %s", administrator, of.Fleet, fleet.Fleet)
	}
	name := filepath.Join(administrator, operatorKeyName)
	key, err := readSeed(name)
	if there, _ := exists(name); there && err != nil {
		return "", err
	}
	if err != nil {
		if key, err = nkeys.CreateOperator(); err != nil {
			return "", err
		}
	}
	defer key.Wipe()
	if public, err = key.PublicKey(); err != nil {
		return "", err
	}
	if public == fleet.Operator {
		return "", fmt.Errorf("%s is the key of this fleet's operator: it is not lost", name)
	}
	seed, err := key.Seed()
	if err != nil {
		return "", err
	}
	defer clear(seed)
	if err := writePrivate(name, append(seed, '\n')); err != nil {
		return "", err
	}
	return public, underOperator(at, administrator, fleet, key)
}

func underOperator(at place, administrator string, fleet fleetFile, key nkeys.KeyPair) error {
	texts := map[access.Account]string{}
	for account, id := range fleet.Accounts {
		text, err := readSmall(filepath.Join(at.accounts(), id+".jwt"))
		if err != nil {
			return err
		}
		texts[account] = strings.TrimSpace(string(text))
	}
	operator, signed, err := access.UnderOperator(texts, fleet.Operator, key)
	if err != nil {
		return err
	}
	for account, id := range fleet.Accounts {
		if err := writePrivate(filepath.Join(at.accounts(), id+".jwt"), []byte(signed[account])); err != nil {
			return err
		}
	}
	if fleet.Operator, err = key.PublicKey(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(fleet, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	for _, f := range []struct {
		name string
		data []byte
	}{
		{filepath.Join(at.identity(), operatorName), []byte(operator + "\n")},
		{filepath.Join(administrator, fleetName), data},
		{filepath.Join(at.identity(), fleetName), data},
	} {
		if err := writePrivate(f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}
