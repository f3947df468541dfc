package main

import (
	"context"
	"strings"

	"chandler/events"
)

// examineAccounts names the accounts that are lent to nobody since machines were refused with them.
func examineAccounts(ctx context.Context, c *client) ([]finding, error) {
	all, err := ask(ctx, c, events.AccountList, events.Nothing{})
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, v := range all.Accounts {
		if v.Suspended == "" {
			continue
		}
		rotate := "`chandler account rotate " + v.Account + "`"
		advice := rotate + " with the right secret; it is lent to nobody before"
		says := v.Suspended
		if before, after, ok := strings.Cut(says, ": "); ok && strings.Contains(after, rotate) {
			says = before // the advice says the rest
		}
		found = append(found, problem("account "+v.Account, advice, "%s", says))
	}
	if len(found) == 0 {
		found = append(found, ok("accounts", "%s, none suspended", plural(len(all.Accounts), "account", "accounts")))
	}
	return found, nil
}
