package main

import (
	"context"
	"log/slog"
	"strings"

	tg "github.com/go-telegram/bot"
	"github.com/go-telegram/bot/models"
)

// answerer answers messages. It logs that it did, never what was said or by whom.
type answerer struct {
	greeting string
	log      *slog.Logger
}

func (a answerer) handle(ctx context.Context, b *tg.Bot, u *models.Update) {
	if u.Message == nil {
		return
	}
	// An answer that was begun is sent, also when SIGTERM comes meanwhile: Telegram counts the message as delivered.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	_, err := b.SendMessage(ctx, &tg.SendMessageParams{
		ChatID:          u.Message.Chat.ID,
		Text:            a.text(u.Message.Text),
		ReplyParameters: &models.ReplyParameters{MessageID: u.Message.ID},
	})
	if err != nil {
		a.log.Error("Answer not sent", "update", u.ID, "error", err)
		return
	}
	a.log.Info("Answered", "update", u.ID)
}

// text of the answer. Telegram takes 4096 characters; a long message is cut.
func (a answerer) text(said string) string {
	switch {
	case said == "":
		return "I can only read text."
	case said == "/start" || strings.HasPrefix(said, "/start "):
		return a.greeting
	}
	r := []rune("You said: " + said)
	if len(r) > 4096 {
		r = append(r[:4095], '…')
	}
	return string(r)
}
