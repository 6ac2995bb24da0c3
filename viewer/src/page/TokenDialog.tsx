/** Asks for the token that the service wants, once for this tab. */

import { type FormEvent, useEffect, useRef, useSyncExternalStore } from "react";

import { enterToken, getTokenPrompt, refuseToken, subscribeToTokenPrompt } from "../token";

export function TokenDialog() {
  const prompt = useSyncExternalStore(subscribeToTokenPrompt, getTokenPrompt);
  const dialog = useRef<HTMLDialogElement>(null);
  const input = useRef<HTMLInputElement>(null);

  useEffect(() => {
    if (prompt !== null && !dialog.current?.open) {
      dialog.current?.showModal();
    }
    input.current?.focus();
  }, [prompt]);

  const submit = (event: FormEvent) => {
    event.preventDefault();
    const token = input.current?.value.trim() ?? "";
    if (token !== "") {
      enterToken(token);
    }
  };

  return prompt === null ? null : (
    <dialog ref={dialog} className="dialog own" aria-labelledby="token-title" onCancel={refuseToken}>
      <form onSubmit={submit}>
        <h2 id="token-title">Enter the token</h2>
        <p id="token-text">
          This service wants a token. Who runs it has one for you. It is kept in this tab until you
          close it.
        </p>
        <label htmlFor="token">Token</label>
        <input
          ref={input}
          id="token"
          name="token"
          type="password"
          autoComplete="current-password"
          spellCheck={false}
          required
          aria-describedby="token-text token-problem"
          aria-invalid={prompt.isWrong}
        />
        <p id="token-problem" className="problem" role="alert">
          {prompt.isWrong && "This is not the token. Check it, and enter it again."}
        </p>
        <div className="dialog-actions">
          <button type="button" onClick={refuseToken}>
            Cancel
          </button>
          <button type="submit" className="primary">
            Go on
          </button>
        </div>
      </form>
    </dialog>
  );
}
