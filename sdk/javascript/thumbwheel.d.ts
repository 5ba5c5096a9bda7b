/** What became of one piece of feedback. */
export interface Outcome {
  /** The id under which it counts once, however often it is sent. */
  readonly id: string;
  /**
   * `recorded`: the gateway's log has it. `waiting`: it could not be sent yet; it is kept and will be.
   * `refused`: the gateway doesn't take it (an expired token, for one). `dropped`: the queue was full, or it was too old.
   */
  readonly status: "recorded" | "waiting" | "refused" | "dropped";
  /** The answer that it is about, once recorded. */
  readonly responseId?: string;
  /** Why it is not recorded, in one word: the gateway's code, `unreachable`, `waiting_to_retry`, `queue_full`, `too_old`. */
  readonly code?: string;
  readonly message?: string;
  readonly httpStatus?: number;
}

/** What a promise is rejected with under `strict`. */
export interface FeedbackError extends Error, Omit<Outcome, "message"> {}

export interface Options {
  /** The gateway's address, such as "https://gateway.example.com"; "" for the page's own. */
  readonly url?: string;
  /** The "thumbwheel::feedback_token" that came with the answer. */
  readonly token?: string;
  /** The answer's id; only needed without a token. */
  readonly responseId?: string;
  /** The end user, as your application names them; only needed where the token has none. */
  readonly user?: string;
  /** What the user agreed that it may be used for; an empty list: nothing beside the answer itself. */
  readonly purposes?: readonly ("training" | "labeling")[];
  /** Reject with a `FeedbackError` where feedback is not recorded at once. What is `waiting` is sent later all the same. */
  readonly strict?: boolean;
}

export interface Feedback {
  thumbsUp(reason?: string): Promise<Outcome>;
  /** A later thumb of the same user replaces the earlier one. */
  thumbsDown(reason?: string): Promise<Outcome>;
  /** Take the thumb back. */
  withdraw(): Promise<Outcome>;
  comment(text: string): Promise<Outcome>;
  /** What the answer should have been. */
  correct(text: string): Promise<Outcome>;
  flag(reason?: string): Promise<Outcome>;
  /** The user copied the answer. */
  copied(): Promise<Outcome>;
  /** The user edited the answer to this text. */
  edited(text: string): Promise<Outcome>;
  /** The user asked for another answer. */
  regenerated(): Promise<Outcome>;
}

export interface ThumbsOptions extends Omit<Options, "strict"> {
  /** What a screen reader says; in your users' language. */
  readonly labels?: { readonly group?: string; readonly up?: string; readonly down?: string };
  readonly onResult?: (outcome: Outcome) => void;
}

export interface MountedThumbs extends Feedback {
  readonly element: HTMLElement;
}

/** Feedback on one answer. */
export function thumbwheel(options?: Options): Feedback;

/** Two thumbs as buttons inside `element`; pressing the pressed one takes the thumb back. */
export function mountThumbs(element: Element, options?: ThumbsOptions): MountedThumbs;

/** Try to send what is waiting now; resolves when there is nothing left to try at present. */
export function flush(): Promise<void>;
