// Decodes dashboards by Grafana's published schema: a field that it does not know, one that is missing or of another
// type, and a value that it forbids are errors, also in the options of each kind of panel and in Prometheus' queries.
//
//	go run . FILE…    prints each error with its file; exit code 1 if there is any
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	wrong := false
	for _, path := range os.Args[1:] {
		if err := check(path); err != nil {
			wrong = true
			fmt.Printf("%s:\n%v\n", path, err)
		}
	}
	if wrong {
		os.Exit(1)
	}
}

func check(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// Of no errors the strict decoder makes a list without any, which is no nil; what it decodes is not whole then.
	var found cog.BuildErrors
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict(raw); err != nil && (!errors.As(err, &found) || len(found) > 0) {
		return err
	}
	var decoded dashboard.Dashboard
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return err
	}
	return errors.Join(decoded.Validate(), knownPanels(decoded), nothingLost(raw, decoded))
}

// A panel of a kind that the schema does not have is decoded without a look at its options.
func knownPanels(decoded dashboard.Dashboard) error {
	var found []error
	for _, each := range decoded.Panels {
		if each.Panel == nil {
			continue
		}
		if _, known := cog.ConfigForPanelcfgVariant(each.Panel.Type); !known {
			found = append(found, fmt.Errorf("%q: no such kind of panel", each.Panel.Type))
		}
		if len(each.Panel.Targets) == 0 {
			found = append(found, fmt.Errorf("%q: it asks nothing", *each.Panel.Title))
		}
	}
	return errors.Join(found...)
}

// What the schema has no place for, wherever it is, is gone after decoding and encoding.
func nothingLost(raw []byte, decoded dashboard.Dashboard) error {
	again, err := json.Marshal(decoded)
	if err != nil {
		return err
	}
	var before, after any
	if err := errors.Join(json.Unmarshal(raw, &before), json.Unmarshal(again, &after)); err != nil {
		return err
	}
	return lost("", before, after)
}

func lost(at string, before, after any) error {
	var found []error
	switch was := before.(type) {
	case map[string]any:
		is, _ := after.(map[string]any)
		for name, value := range was {
			if value != nil {
				found = append(found, lost(at+"."+name, value, is[name]))
			}
		}
	case []any:
		is, _ := after.([]any)
		if len(is) != len(was) {
			return fmt.Errorf("%s: %d of %d are left", at, len(is), len(was))
		}
		for number, value := range was {
			found = append(found, lost(fmt.Sprintf("%s[%d]", at, number), value, is[number]))
		}
	default:
		// An empty text and `false` are what an absent field means.
		if after != before && before != "" && before != false {
			return fmt.Errorf("%s: %v became %v", at, before, after)
		}
	}
	return errors.Join(found...)
}
