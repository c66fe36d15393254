package readindex

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"muster/state"
)

func TestRoundsAnswerNothingOlderThanTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		questions, answer := 0, make(chan int)
		r := NewRounds(func(context.Context) (int, error) { questions++; return <-answer, nil })
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		got := make([]int, 5)
		join := func(i int) {
			running.Go(func() { got[i], _ = r.Join(ctx) })
			synctest.Wait()
		}
		join(0)
		for i := range 4 {
			join(i + 1) // while the first question is under way
		}
		answer <- 7
		synctest.Wait()
		answer <- 8
		synctest.Wait()
		if want := [5]int{7, 8, 8, 8, 8}; [5]int(got) != want || questions != 2 {
			t.Errorf("%v after %d questions; want %v after 2", got, questions, want)
		}
		stop()
		running.Wait()
		if _, err := r.Join(t.Context()); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("after the end: %v; want ErrUnavailable", err)
		}
	})
}

func TestMajority(t *testing.T) {
	silent := errors.New("silent")
	for name, test := range map[string]struct {
		voters  []string
		vouched string
		says    map[string]string // "" is somebody who names nobody; missing is silence
		asked   int
		holds   bool
	}{
		"alone":                                  {voters: []string{"m1"}, holds: true},
		"not a voter":                            {voters: []string{"m2", "m3"}},
		"one of three follows":                   {voters: []string{"m1", "m2", "m3"}, says: map[string]string{"m3": "m1"}, asked: 2, holds: true},
		"one of three vouches, nobody is asked":  {voters: []string{"m1", "m2", "m3"}, vouched: "m2", holds: true},
		"a stranger's word does not count":       {voters: []string{"m1", "m2", "m3"}, vouched: "m9", says: map[string]string{"m2": "", "m3": "m2"}, asked: 2},
		"its own word does not count twice":      {voters: []string{"m1", "m2", "m3"}, vouched: "m1", says: map[string]string{"m2": ""}, asked: 2},
		"both follow another":                    {voters: []string{"m1", "m2", "m3"}, says: map[string]string{"m2": "m3", "m3": "m3"}, asked: 2},
		"one vouches of five, one more follows":  {voters: []string{"m1", "m2", "m3", "m4", "m5"}, vouched: "m2", says: map[string]string{"m3": "m1", "m4": "m4", "m5": ""}, asked: 3, holds: true},
		"one vouches of five, the rest is quiet": {voters: []string{"m1", "m2", "m3", "m4", "m5"}, vouched: "m2", asked: 3},
		"of two both are needed":                 {voters: []string{"m1", "m2"}, says: map[string]string{"m2": ""}, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			asked := 0
			err := Majority(t.Context(), "m1", test.voters, test.vouched, func(_ context.Context, voter string) (string, error) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				leader, says := test.says[voter]
				if !says {
					return "", silent
				}
				return leader, nil
			})
			if (err == nil) != test.holds || err != nil && !errors.Is(err, state.ErrUnavailable) {
				t.Errorf("got %v; want a majority: %v", err, test.holds)
			}
			if asked != test.asked {
				t.Errorf("%d voters were asked; want %d", asked, test.asked)
			}
		})
	}
}
