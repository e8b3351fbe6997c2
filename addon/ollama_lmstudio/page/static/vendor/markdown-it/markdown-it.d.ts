// What the page uses of it.
export type Token = {
  type: string;
  tag: string;
  nesting: -1 | 0 | 1;
  hidden: boolean;
  content: string;
  info: string;
  children: Token[] | null;
  attrGet(name: string): string | null;
};
export default class MarkdownIt {
  constructor(preset: string, options: Record<string, boolean>);
  parse(text: string, env: object): Token[];
}
